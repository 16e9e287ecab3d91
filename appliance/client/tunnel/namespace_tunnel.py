"""Sends one program's traffic into the tunnel: runs it in a network namespace that has nothing else.

The interface is created in the host's namespace and moved. Its UDP socket stays in the namespace it was created in, so
the tunnel's own packets are routed by the host. https://www.wireguard.com/netns/
"""

from __future__ import annotations

import subprocess
from contextlib import closing
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from appliance.client.tunnel import links, same_exit
from appliance.client.tunnel.device_config import device_config
from appliance.client.tunnel.namespace import Namespace
from appliance.client.tunnel.resolv_conf import give_own_resolvers
from appliance.client.tunnel.tunnel import TunnelCounters, read_counters
from appliance.client.tunnel.wg_config import MTU_REMEDY, PUBLIC_RESOLVER, network_of
from appliance.domain.errors import ApplianceError, HostError
from appliance.network import interfaces
from appliance.network.wireguard import link, link_state, tunnel_mtu
from appliance.network.wireguard.backend import choose_device, existing_device
from appliance.network.wireguard.tunnel import LinkChange
from appliance.network.wireguard.wireguard_go import end_wireguard_go

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from appliance.client.sudo_user import Invoker
    from appliance.client.tunnel.device_config import DeviceConfig
    from appliance.client.tunnel.wg_config import SessionConfig

EVERYTHING = {4: ip_network("0.0.0.0/0"), 16: ip_network("::/0")}  # by the length of an address
NO_DEFAULT = 8  # length of a prefix: shorter ones are default routes in parts, as other tunnels have them


class NamespaceTunnel:
    # The host's own resolvers are out of reach: they are on this machine or in its network.
    default_resolvers: Sequence[str] = (PUBLIC_RESOLVER,)

    def __init__(self, interface: str, private_key: bytes, resolv_conf: Path) -> None:
        self._interface = interface
        self._private_key = private_key
        self._resolv_conf = resolv_conf
        self._space: Namespace | None = None
        self._mtu: int | None = None

    def check(self) -> None:
        choose_device("auto", self._interface)

    def up(self, config: SessionConfig) -> None:
        _refuse(config)
        same_exit.refuse(config)
        wanted = device_config(config)
        self._mtu = _mtu(wanted)
        self._space = space = Namespace()
        space.run(link.change_link, "lo", LinkChange(up=True))
        device, _ = choose_device("auto", self._interface)
        with closing(device):
            device.change_link(LinkChange(create=True, mtu=self._mtu))
            device.dial(wanted.server, self._private_key)
        links.move(self._interface, space)
        space.run(self._set_up, wanted)
        if config.resolvers:  # else the user keeps the machine's own
            space.run(give_own_resolvers, config.resolvers, self._resolv_conf)

    def change(self, before: SessionConfig, config: SessionConfig) -> None:
        _refuse(config)
        space, wanted = self._made(), device_config(config)
        self._mtu = _mtu(wanted)
        gone = frozenset(device_config(before).addresses) - frozenset(wanted.addresses)
        space.run(link.change_link, self._interface, LinkChange(remove_addresses=gone))
        space.run(self._set_up, wanted)
        space.run(self._dial, wanted)

    def counters(self) -> TunnelCounters:
        return self._made().run(read_counters, self._interface)

    def mark(self) -> None:
        """Returns None: traffic outside the namespace does not go into the tunnel."""

    def start(self, command: Sequence[str], user: Invoker, environ: dict[str, str]) -> subprocess.Popen[bytes]:
        """Starts the program. Raises OSError if there is no such program, or it may not be executed."""

        def begin() -> subprocess.Popen[bytes]:
            uid, gid, groups = (user.uid, user.gid, user.groups()) if user.changed else (None, None, None)
            return subprocess.Popen(  # noqa: S603 (what the user asks for)
                list(command), env=environ, user=uid, group=gid, extra_groups=groups
            )

        return self._made().run(begin)

    def down(self) -> list[str]:
        """Removes the interface at once: background processes of the command would keep the namespace alive."""
        failed = []
        for step in (self._remove_interface, lambda: end_wireguard_go(self._interface)):
            try:
                step()
            except ApplianceError as error:
                failed.append(str(error))
        if self._space is not None:
            self._space.close()
            self._space = None
        self._resolv_conf.unlink(missing_ok=True)
        return failed

    def _remove_interface(self) -> None:
        remove_interface(self._interface)  # if it was not moved into the namespace
        if self._space is not None:
            self._space.run(remove_interface, self._interface)

    def _made(self) -> Namespace:
        if self._space is None:
            raise HostError("the tunnel is not up")
        return self._space

    def _set_up(self, wanted: DeviceConfig) -> None:
        addresses = frozenset(wanted.addresses)
        change = LinkChange(mtu=self._mtu, add_addresses=addresses, up=True)
        link.change_link(self._interface, change)
        for length in {len(prefix.address) for prefix in addresses}:
            links.add_route(EVERYTHING[length], self._interface, replace=True)

    def _dial(self, wanted: DeviceConfig) -> None:
        with existing_device(self._interface) as device:
            device.dial(wanted.server, self._private_key)


def refuse_resolvers(asked: Sequence[str]) -> None:
    """Raises HostError if one of the user's resolvers is on this machine or in a network of its own: the program,
    which has the tunnel and nothing else, would ask for it at the exit."""
    networks = interfaces.host_networks(without="") if asked else []
    networks = [(name, network) for name, network in networks if network.prefixlen >= NO_DEFAULT]
    for resolver in asked:
        where = network_of(ip_address(resolver), networks)
        if where:
            raise HostError(
                f"--dns {resolver} is in {where}, out of reach of a program that has the tunnel alone; name another, "
                "or leave it to the exit"
            )


def _refuse(config: SessionConfig) -> None:
    if config.has_ipv6_address and config.is_too_small_for_ipv6:
        raise HostError(f"the exit's MTU {config.mtu} is too small for the IPv6 address that it gives; {MTU_REMEDY}")


def _mtu(wanted: DeviceConfig) -> int:
    """Returns the tunnel's MTU: the file's, else what the line to the exit leaves."""
    return wanted.mtu or tunnel_mtu.fitting([links.mtu_to(wanted.server.endpoint.host)])


def remove_interface(interface: str) -> None:
    """Removes an interface of this thread's network namespace. A missing one is not an error."""
    kind = link_state.link_kind(interface)
    if kind is not None:
        link.delete_link(interface, kind)
