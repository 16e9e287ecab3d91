"""Sends all of the machine's traffic into the tunnel, using wg-quick(8)."""

from __future__ import annotations

import shutil
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

from appliance.client.run_records import config_of, write_beside
from appliance.client.tunnel import ip_rules, links, nft_guard, same_exit, wg_config, wg_quick_cleanup, wg_quick_needs
from appliance.client.tunnel.device_config import device_config
from appliance.client.tunnel.tunnel import TunnelCounters, read_counters
from appliance.client.tunnel.wg_quick_needs import WG_QUICK
from appliance.domain.errors import ApplianceError, HostError
from appliance.network import interfaces, programs
from appliance.network.uplinks import INTERNET
from appliance.network.wireguard import link, link_state
from appliance.network.wireguard.backend import choose_device, existing_device
from appliance.network.wireguard.tunnel import LinkChange
from appliance.network.wireguard.wireguard_go import end_wireguard_go

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from appliance.client.tunnel.wg_config import SessionConfig

WG_QUICK_S = 120.0
OTHER_WIREGUARD = "WG_QUICK_USERSPACE_IMPLEMENTATION"  # names the user's choice of program instead of wireguard-go
BOX = ("┌", "│", "└")  # what wireguard-go's advice to use the kernel is framed with


class FullTunnel:
    default_resolvers: Sequence[str] = ()  # empty: keeps the machine's own

    def __init__(
        self,
        interface: str,
        environ: Mapping[str, str],
        remark: Callable[[str], None],
        private_key: bytes = b"",
        mark: int | None = None,
    ) -> None:
        """Makes a tunnel with `private_key`; or takes one over that a killed run has left, with its fwmark `mark`."""
        self._interface = interface
        self._environ = environ
        self._remark = remark
        self._private_key = private_key
        self._mark = mark
        self._file = config_of(interface)

    def check(self) -> None:
        wg_quick_needs.check(self._environ)
        if not self._environ.get(OTHER_WIREGUARD):
            choose_device("auto", self._interface)

    def up(self, config: SessionConfig) -> None:
        self._refuse(config)
        same_exit.refuse(config)
        self._say_what_stays_outside(config)
        write_beside(self._file, wg_config.render(config, self._private_key))
        self._run("up")
        if not config.ipv6 and interfaces.has_ipv6():
            ip_rules.prohibit_ipv6(self._marked())
        self._check_routes()

    def change(self, before: SessionConfig, config: SessionConfig) -> None:
        """Changes the interface in place: without it, the machine's traffic would leave outside the tunnel."""
        self._refuse(config)
        old, new = device_config(before), device_config(config)
        write_beside(self._file, wg_config.render(config, self._private_key))
        # An interface that loses its last address loses its routes, so the new address is added first.
        mtu = new.mtu if new.mtu != old.mtu else None  # None: what the interface has fits the line
        link.change_link(self._interface, LinkChange(mtu=mtu, add_addresses=frozenset(new.addresses)))
        nft_guard.guard(self._interface, new.addresses, self._environ)
        with existing_device(self._interface) as device:
            device.dial(new.server)
        gone = frozenset(old.addresses) - frozenset(new.addresses)
        link.change_link(self._interface, LinkChange(remove_addresses=gone))
        if config.resolvers != before.resolvers:
            wg_quick_cleanup.set_resolvers(self._interface, config.resolvers, self._environ)
        self._check_routes()

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

    def _marked(self) -> int:
        mark = self.mark()
        if mark is None:
            raise HostError(f"{WG_QUICK} has given {self._interface} no mark, by which its own packets would be known")
        return mark

    def _remove(self) -> None:
        """Removes the interface with wg-quick; without it if that fails, or if the interface has gone already, on
        which wg-quick refuses to run."""
        kind = link_state.link_kind(self._interface)
        if kind is not None and self._file.exists():
            self.mark()
            try:
                self._run("down")
                if self._mark is not None:
                    ip_rules.allow_ipv6(self._mark)
                return
            except HostError as error:
                self._remark(f"{error}; taking {self._interface} away without it")
                kind = link_state.link_kind(self._interface)
        if kind is not None:
            link.delete_link(self._interface, kind)
        if self._file.exists():
            with_dns = wg_config.may_have_resolvers(self._file.read_text(encoding="ascii", errors="replace"))
            wg_quick_cleanup.remove(self._interface, self._mark, self._environ, self._remark, resolvers=with_dns)

    def _refuse(self, config: SessionConfig) -> None:
        """Raises HostError for a config that this machine cannot have all its traffic go by."""
        if config.resolvers and shutil.which(wg_quick_cleanup.RESOLVCONF) is None:
            whose = "you name" if config.asked else "the exit names"
            raise HostError(
                f"{whose} resolvers ({', '.join(config.resolvers)}), for which {WG_QUICK} needs resolvconf: "
                "apt-get install openresolv; or go on with this machine's own: --dns none"
            )
        if config.ipv6 and config.is_too_small_for_ipv6:
            raise HostError(
                f"the exit's MTU {config.mtu} is too small for IPv6, which would leave outside the tunnel; "
                f"{wg_config.MTU_REMEDY}"
            )
        dialled = device_config(config).server.endpoint.host
        own = interfaces.host_interfaces(without=self._interface)
        if dialled.is_loopback or any(interface.ip == dialled for _, interface in own):
            # Its own traffic to the internet would be routed into its own tunnel.
            raise HostError("this machine is the exit; connect from another, or one program alone: connect -- COMMAND")
        clash = wg_config.own_network(config, interfaces.host_networks(without=self._interface))
        taken = {dialled: "the exit's own", **{ip_address(each): "its resolver's" for each in config.resolvers}}
        for address in config.addresses:
            clash = f"its address {address} is {taken[address]}" if address in taken else clash
        if clash:
            raise HostError(f"the exit's wg_config is refused: {clash}; run one program alone: connect -- COMMAND")

    def _say_what_stays_outside(self, config: SessionConfig) -> None:
        """Remarks which of the user's resolvers are in networks of this machine: they are asked there, as before."""
        networks = interfaces.host_networks(without=self._interface) if config.asked else []
        for resolver in config.resolvers:
            where = wg_config.network_of(ip_address(resolver), networks)
            if where:
                self._remark(f"DNS is asked outside the tunnel, as --dns has it: {resolver} is in {where}")

    def _check_routes(self) -> None:
        """Raises HostError if the kernel would send to the internet by another interface than the tunnel's."""
        for addresses in INTERNET.values():
            for address in addresses:
                way = links.way_to(str(address))
                if way is not None and way != self._interface:
                    raise HostError(
                        f"traffic to {address} would leave by {way}, outside the tunnel: another tunnel's routes, or "
                        "rules of this machine's, come first; take those away, or run one program: connect -- COMMAND"
                    )

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
            instead = f"; {wg_quick_needs.ONE_PROGRAM}" if action == "up" else ""
            raise HostError(f"{WG_QUICK} {action} {error.reason}{instead}") from error


def _complaint(said: str) -> str:
    """Returns wg-quick's error messages without the commands that it prints, and without wireguard-go's advice."""
    lines = [line for line in said.splitlines() if line and not line.startswith(BOX)]
    return " ".join([line for line in lines if not line.startswith(("[#]", "[!]"))] or lines)
