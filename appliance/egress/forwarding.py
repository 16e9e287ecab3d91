"""The host's forwarding sysctls: switched on for the tunnel, and put back as they were."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from appliance.errors import EgressError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)


class Forwarding:
    """`proc_sys` is /proc/sys; `record` the file that keeps the values found at first, for the boot `boot_id`."""

    def __init__(self, proc_sys: Path, record: Path, boot_id: str, *, interface: str, ipv6: bool) -> None:
        self._root = proc_sys
        self._without_advertisements = ("all", "lo", interface)
        self._record = record
        self._boot_id = boot_id
        self._ipv6 = ipv6

    def ensure(self) -> None:
        """Raises EgressError naming the sysctl that cannot be set."""
        wrong = {name: value for name, value in self._wanted() if self._read(name) != value}
        if not wrong:
            return
        before = self._recorded()
        before |= {name: self._read(name) for name in wrong if name not in before}
        self._record.write_text(json.dumps({"boot_id": self._boot_id, "values": before}), encoding="utf-8")
        for name, value in wrong.items():
            log.info("sysctl %s = %s (was %s)", name.replace("/", "."), value, before[name])
            self._write(name, value)

    def restore(self) -> None:
        """Put back what `ensure` changed in this boot."""
        # Forwarding first: switching it off resets nothing that comes after it.
        for name, value in reversed(self._recorded().items()):
            if (self._root / name).exists():
                self._write(name, value)
        self._record.unlink(missing_ok=True)

    def _wanted(self) -> Iterator[tuple[str, str]]:
        # The kernel's WireGuard clears this one by itself when its interface comes up (drivers/net/wireguard/device.c,
        # wg_open): a redirect would send clients around the tunnel. Listed here so that it is put back.
        yield "net/ipv4/conf/all/send_redirects", "0"
        yield "net/ipv4/ip_forward", "1"
        if not self._ipv6:
            return
        # A forwarding host ignores router advertisements unless accept_ra is 2; a host that got its IPv6 default
        # route from one would lose it. https://docs.kernel.org/networking/ip-sysctl.html#conf-all-accept-ra
        for entry in sorted((self._root / "net/ipv6/conf").glob("*/accept_ra")):
            name = str(entry.relative_to(self._root))
            if entry.parent.name not in self._without_advertisements and self._read(name) == "1":
                yield name, "2"
        yield "net/ipv6/conf/all/forwarding", "1"

    def _recorded(self) -> dict[str, str]:
        try:
            content = json.loads(self._record.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        # After a reboot the kernel's values are fresh; what was recorded before says nothing about them.
        return dict(content["values"]) if content.get("boot_id") == self._boot_id else {}

    def _read(self, name: str) -> str:
        try:
            return (self._root / name).read_text(encoding="ascii").strip()
        except OSError as error:
            raise EgressError(f"cannot read the sysctl {name.replace('/', '.')}: {error.strerror}") from error

    def _write(self, name: str, value: str) -> None:
        try:
            (self._root / name).write_text(value, encoding="ascii")
        except OSError as error:
            sysctl = name.replace("/", ".")
            raise EgressError(f"cannot set {sysctl} = {value}: {error.strerror}; set it on the host") from error
