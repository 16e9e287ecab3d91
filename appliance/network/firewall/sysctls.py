"""Enables the host's forwarding sysctls for the tunnel, and restores them."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING

from appliance.domain.errors import EgressError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

log = logging.getLogger(__name__)


ALWAYS_READ = ("net/ipv4/conf/all/send_redirects", "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")


class Forwarding:
    """Sets and restores sysctls. `proc_sys` is /proc/sys; `record` keeps the original values of the boot `boot_id`."""

    def __init__(self, proc_sys: Path, record: Path, boot_id: str) -> None:
        self._root = proc_sys
        self._record = record
        self._boot_id = boot_id

    def read(self) -> dict[str, str]:
        """Returns (path below /proc/sys, value) of each sysctl that may have to be set, without missing ones."""
        advertisements = (str(e.relative_to(self._root)) for e in (self._root / "net/ipv6/conf").glob("*/accept_ra"))
        values = {name: self._read(name) for name in (*ALWAYS_READ, *advertisements)}
        return {name: value for name, value in values.items() if value is not None}

    def set(self, wanted: Mapping[str, str]) -> None:
        """Records the original values, then sets the sysctls. Raises EgressError naming one that cannot be set."""
        before = self._recorded()
        before |= {name: value for name in wanted if name not in before and (value := self._read(name)) is not None}
        self._note(before)
        for name, value in wanted.items():
            was = self._read(name)
            self._write(name, value)
            log.info("sysctl %s = %s (was %s)", name.replace("/", "."), value, was)

    def restore(self) -> list[str]:
        """Restores what `set` changed in this boot; returns the names.

        Restores only sysctls that `set` may change: the record belongs to the service's user, whom root does not trust
        further.
        """
        changeable = self.read()
        # Forwarding first: switching it off resets nothing that comes after it.
        recorded = {name: value for name, value in reversed(self._recorded().items()) if name in changeable}
        for name, value in recorded.items():
            self._write(name, value)
        self._record.unlink(missing_ok=True)
        return list(recorded)

    def _note(self, before: Mapping[str, str]) -> None:
        # Written to a temporary file first: values in a truncated record could not be restored.
        new = self._record.with_suffix(".new")
        try:
            with new.open("w", encoding="utf-8") as file:
                json.dump({"boot_id": self._boot_id, "values": before}, file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._record)
        except OSError as error:
            raise EgressError(f"cannot note the host's sysctls in {self._record}: {error.strerror}") from error

    def _recorded(self) -> dict[str, str]:
        try:
            content = json.loads(self._record.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        # After a reboot the kernel's values are fresh; what was recorded before says nothing about them.
        return dict(content["values"]) if content.get("boot_id") == self._boot_id else {}

    def _read(self, name: str) -> str | None:
        try:
            return (self._root / name).read_text(encoding="ascii").strip()
        except OSError:
            return None  # the interface is gone, or the kernel has no IPv6

    def _write(self, name: str, value: str) -> None:
        try:
            descriptor = os.open(self._root / name, os.O_WRONLY)  # without O_CREAT
            try:
                os.write(descriptor, value.encode("ascii"))
            finally:
                os.close(descriptor)
        except OSError as error:
            sysctl = name.replace("/", ".")
            raise EgressError(f"cannot set {sysctl} = {value}: {error.strerror}; set it on the host") from error
