"""Sends all of the machine's traffic into the tunnel, using wg-quick(8)."""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.client.credentials import write_private
from appliance.client.run_records import config_of
from appliance.client.tunnel import nft_guard, wg_quick_cleanup
from appliance.client.tunnel.device_config import read_device_config
from appliance.client.tunnel.tunnel import TunnelCounters, read_counters
from appliance.client.tunnel.wg_config import resolvers
from appliance.domain.errors import ApplianceError, HostError
from appliance.network import interfaces, programs
from appliance.network.wireguard import link
from appliance.network.wireguard.backend import choose_device, existing_device
from appliance.network.wireguard.tunnel import LinkChange
from appliance.network.wireguard.wireguard_go import end_wireguard_go

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WG_QUICK = "wg-quick"
WG_QUICK_S = 120.0
OTHER_WIREGUARD = "WG_QUICK_USERSPACE_IMPLEMENTATION"  # names the user's choice of program instead of wireguard-go


class FullTunnel:
    default_resolvers: Sequence[str] = ()  # empty: keeps the machine's own

    def __init__(
        self, interface: str, environ: Mapping[str, str], remark: Callable[[str], None], mark: int | None = None
    ) -> None:
        """Takes over a tunnel: `mark` is the fwmark of a tunnel that a killed run has left."""
        self._interface = interface
        self._environ = environ
        self._remark = remark
        self._mark = mark
        self._file = config_of(interface)

    def check(self) -> None:
        if shutil.which(WG_QUICK) is None:
            raise HostError(
                f"{WG_QUICK} is missing: apt-get install wireguard-tools; or run one program through the tunnel, "
                "which does not need it: connect -- COMMAND"
            )
        if not self._environ.get(OTHER_WIREGUARD):
            choose_device("auto", self._interface)

    def up(self, config: str) -> None:
        self._refuse(config)
        write_private(self._file, config)
        self._run("up")

    def change(self, config: str) -> None:
        """Changes the interface in place: without it, the machine's traffic would leave outside the tunnel."""
        self._refuse(config)
        before = self._file.read_text(encoding="ascii")
        old, new = read_device_config(before), read_device_config(config)
        write_private(self._file, config)
        # An interface that loses its last address loses its routes, so the new address is added first.
        mtu = new.mtu if new.mtu != old.mtu else None  # None: what the interface has fits the line
        link.change_link(self._interface, LinkChange(mtu=mtu, add_addresses=frozenset(new.addresses)))
        nft_guard.guard(self._interface, new.addresses, self._environ)
        with existing_device(self._interface) as device:
            device.dial(new.server)
        gone = frozenset(old.addresses) - frozenset(new.addresses)
        link.change_link(self._interface, LinkChange(remove_addresses=gone))
        if resolvers(config) != resolvers(before):
            wg_quick_cleanup.set_resolvers(self._interface, resolvers(config), self._environ)

    def counters(self) -> TunnelCounters:
        return read_counters(self._interface)

    def mark(self) -> int | None:
        """Returns the fwmark that wg-quick has chosen."""
        with suppress(HostError, ValueError):  # wg is missing; the mark is "off"
            self._mark = int(programs.run("wg", "show", self._interface, "fwmark", environ=self._environ).strip(), 0)
        return self._mark

    def down(self) -> list[str]:
        failed: list[str] = []
        for step in (self._remove, lambda: end_wireguard_go(self._interface)):
            try:
                step()
            except (ApplianceError, OSError) as error:
                failed.append(str(error))
        if not failed:  # else the next run needs the file
            self._file.unlink(missing_ok=True)
        return failed

    def _remove(self) -> None:
        """Removes the interface with wg-quick; without it if that fails, or if the interface has gone already, on
        which wg-quick refuses to run."""
        kind = link.link_kind(self._interface)
        if kind is not None and self._file.exists():
            self.mark()
            try:
                self._run("down")
                return
            except HostError as error:
                self._remark(f"{error}; taking {self._interface} away without it")
                kind = link.link_kind(self._interface)
        if kind is not None:
            link.delete_link(self._interface, kind)
        if self._file.exists():
            names = resolvers(self._file.read_text(encoding="ascii"))
            wg_quick_cleanup.remove(self._interface, self._mark, names, self._environ, self._remark)

    def _refuse(self, config: str) -> None:
        """Raises HostError if resolvconf is missing and needed; or if this machine is the exit itself, whose own
        traffic to the internet would be routed into its own tunnel."""
        if resolvers(config) and shutil.which(wg_quick_cleanup.RESOLVCONF) is None:
            raise HostError(
                f"the exit names resolvers ({', '.join(resolvers(config))}), for which {WG_QUICK} needs resolvconf: "
                "apt-get install openresolv; or go on with this machine's own: --dns none"
            )
        dialled = read_device_config(config).server.endpoint.host
        if any(interface.ip == dialled for _, interface in interfaces.host_interfaces(without=self._interface)):
            raise HostError("this machine is the exit; connect from another, or one program alone: connect -- COMMAND")

    def _run(self, action: str) -> None:
        """Runs wg-quick in a session of its own, out of reach of the terminal's signals: a half-done action is worse
        than one that has to be undone.
        """
        try:
            programs.run(
                *(WG_QUICK, action, str(self._file)),
                environ=self._environ,
                timeout_s=WG_QUICK_S,
                new_session=True,
                merged=True,  # wireguard-go complains on stdout
                summary=_complaint,
            )
        except programs.ProgramMissing:
            raise
        except programs.ProgramFailed as error:
            raise HostError(f"{WG_QUICK} {action} {error.reason}") from error


def _complaint(said: str) -> str:
    """Returns wg-quick's error messages without the commands that it prints."""
    lines = said.splitlines()
    return " ".join([line for line in lines if line and not line.startswith(("[#]", "[!]"))] or lines)
