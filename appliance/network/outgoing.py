"""Reads by which interfaces of the host clients' packets may leave, so that answers come in by them. Blocking.

Any route of any table counts: which one a packet takes is up to policy rules, of which there may be more tomorrow.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.config.value_types import AddressPort
from appliance.domain.errors import HostError
from appliance.network import next_hops
from appliance.network.firewall.chains.destinations import private_ipv4
from appliance.network.netlink import constants
from appliance.network.netlink.codec import attributes
from appliance.network.netlink.routing import routing_socket
from appliance.network.uplinks import leads_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from appliance.network.firewall.rules import Network

LOOPBACK = "lo"
HALF = 1  # the prefix length of the two routes that some VPNs add in place of a default one
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, destination and source length, tos, table, protocol, scope, type, flags
_NEXT_HOP = struct.Struct("=HBBI")  # length, flags, hops, interface
_INDEX = struct.Struct("=I")
_BRIDGE = "bridge"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Names interfaces: those by which clients' packets may leave in IPv4, and the bridges among all.

    `default`: those of a default route, or of one half of it, in any table. `answering`: of these the ones by which a
    route leads out for what is bound to them.
    """

    interfaces: frozenset[str]
    bridges: frozenset[str]
    default: frozenset[str] = frozenset()
    answering: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Reachable:
    """Tells which networks clients may send to: what is not blocked, or allowed in part."""

    blocked: Sequence[IPv4Network]
    allowed: Sequence[IPv4Network]

    def __contains__(self, network: IPv4Network) -> bool:
        blocked = any(network.subnet_of(each) for each in self.blocked)
        return not blocked or any(network.overlaps(each) for each in self.allowed)


def _reachable(allowed: Iterable[Network | AddressPort], *, private_blocked: bool) -> _Reachable:
    hosts = (
        IPv4Network(each.address) for each in allowed if isinstance(each, AddressPort) and each.address.version == 4
    )
    networks = [*hosts, *(each for each in allowed if isinstance(each, IPv4Network))]
    return _Reachable(private_ipv4() if private_blocked else [], networks)


def read_outgoing(
    tunnel: str, allowed: Sequence[Network | AddressPort], *, private_blocked: bool, all_interfaces: bool
) -> Outgoing:
    """Reads them, but the tunnel. Clients may not send to private networks, if these are blocked, but to `allowed`.

    Raises HostError.
    """
    names, reachable = dict(_interfaces()), _reachable(allowed, private_blocked=private_blocked)
    ways = [(length, names[index]) for length, index in _ways_out(reachable) if index in names]
    found = frozenset(names.values()) if all_interfaces else frozenset(name for _, name in ways)
    bridges = frozenset(name for name in names.values() if Path("/sys/class/net", name, _BRIDGE).is_dir())
    others = {tunnel, LOOPBACK}
    default = frozenset(name for length, name in ways if length <= HALF) - others
    answering = frozenset(names[index] for index in names if names[index] in default and leads_out(index))
    return Outgoing(found - others, bridges, default, answering)


def _interfaces() -> list[tuple[int, str]]:
    try:
        return socket.if_nameindex()
    except OSError as error:
        raise HostError(f"the host's interfaces cannot be read: {error.strerror}") from error


def _ways_out(reachable: _Reachable) -> set[tuple[int, int]]:
    request = _RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, constants.RTN_UNICAST, 0)
    try:
        with routing_socket(strict=True) as route:
            routes = route.dump(constants.RTM_GETROUTE, request)
            ways = {way for payload in routes for way in _ways(payload, reachable)}
            named = {way for payload in routes for way in _named_hops(payload, reachable)}
            # Asked for only where a route names one: kernels before Linux 5.3 have none.
            hops = next_hops.interfaces_by_id(route) if named else {}
            return ways | {(length, index) for length, number in named for index in hops.get(number, ())}
    except OSError as error:
        raise HostError(f"the host's routes cannot be read: {error.strerror or error}") from error


def _named_hops(route: bytes, reachable: _Reachable) -> Iterator[tuple[int, int]]:
    """Returns the prefix length and the next hop object of a route that has no interface beside it.

    With net.ipv4.nexthop_compat_mode, the default, a route has both.
    """
    length, has = _open_route(route, reachable)
    if constants.RTA_NH_ID in has and not has.keys() & {constants.RTA_OIF, constants.RTA_MULTIPATH}:
        yield length, _INDEX.unpack(has[constants.RTA_NH_ID])[0]


def _open_route(route: bytes, reachable: _Reachable) -> tuple[int, dict[int, bytes]]:
    """Returns the prefix length and the attributes of a route; none if clients may send to none of its addresses."""
    family, length, _, _, _, _, _, kind, _ = _RTMSG.unpack_from(route)
    if (family, kind) != (socket.AF_INET, constants.RTN_UNICAST):
        return length, {}
    has = dict(attributes(route[_RTMSG.size :]))
    destination = IPv4Network((has.get(constants.RTA_DST, bytes(4)), length))
    return length, has if destination in reachable else {}


def _ways(route: bytes, reachable: _Reachable) -> Iterator[tuple[int, int]]:
    """Returns the prefix length and each interface of a route."""
    length, has = _open_route(route, reachable)
    if constants.RTA_OIF in has:
        yield length, _INDEX.unpack(has[constants.RTA_OIF])[0]
    hops = has.get(constants.RTA_MULTIPATH, b"")
    while len(hops) >= _NEXT_HOP.size:
        size, _, _, index = _NEXT_HOP.unpack_from(hops)
        if size < _NEXT_HOP.size:
            return
        yield length, index
        hops = hops[(size + 3) & ~3 :]
