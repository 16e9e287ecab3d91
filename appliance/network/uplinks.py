"""Asks the kernel by which interfaces, and from which addresses, this host sends to the internet. Blocking.

The kernel's own lookup (RTM_GETROUTE) is the one answer that has all in it that decides: policy rules, metrics, routes
that refuse, several next hops, a default route in two halves, a source address of the route's own.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError
from appliance.network.netlink import constants
from appliance.network.netlink.codec import attribute, attributes
from appliance.network.netlink.routing import RoutingSocket, routing_socket
from appliance.network.source_address import HostAddress, lasting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Address = IPv4Address | IPv6Address

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
# Addresses that nothing is sent to. Root servers (a, k and m): a host has no routes of its own to them, as it may have
# to a resolver; and what most of them leave by is asked for, in case it does.
INTERNET: Mapping[int, Sequence[Address]] = {
    4: [IPv4Address("198.41.0.4"), IPv4Address("193.0.14.129"), IPv4Address("202.12.27.33")],
    6: [IPv6Address("2001:503:ba3e::2:30"), IPv6Address("2001:7fd::1"), IPv6Address("2001:dc3::35")],
}
NO_WAY = {
    *(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL),  # none, unreachable, prohibit, blackhole
    *(errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.ENETDOWN, errno.ENODEV),  # no IPv6, an interface that has just gone
}
NO_PUBLIC_ADDRESS = (
    "node.public_ip is auto, and this host has no default route that its kernel uses (a route of another table counts "
    "where an ip rule leads to it); give it one, or set node.public_ip to the address clients dial"
)
ALIAS_KINDS = {"dummy", "bridge"}  # links that may stand for themselves, with nothing behind them

_RTMSG = struct.Struct("=BBBBBBBBI")  # family, destination and source length, tos, table, protocol, scope, type, flags
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, interface
_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_NUMBER = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Uplink:
    """Describes how the host sends to the internet.

    `mtu`: of the interface, or of the route if that is less. `address`: the source that lasts; None if it has no global
    one.
    """

    interface: str
    mtu: int
    address: Address | None
    ifindex: int = 0


@dataclass(frozen=True, slots=True)
class HostView:
    """Holds what the host is on the network, without the tunnel: how it sends, and its own addresses.

    `places`: the interfaces to which the address `asked` belongs; none if it is not the host's own.
    """

    uplinks: Mapping[int, Uplink]
    own: frozenset[Address]
    asked: Address | None = None
    places: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Way:
    ifindex: int
    source: Address | None
    gateway: bool
    mtu: int | None  # of the route, if it has one of its own


@dataclass(frozen=True, slots=True)
class _Interface:
    name: str
    mtu: int
    alias: bool  # nothing need be behind it
    neighbours: bool  # more than the other end of a link


def uplinks() -> dict[int, Uplink]:
    """Returns how this host sends to the internet, for each IP version in which it does, IPv4 first.

    Raises HostError.
    """
    return dict(look(None, without="").uplinks)


def default_route_address() -> Address:
    """Returns the address from which this host sends to the internet: IPv4 if it has one, else IPv6."""
    for uplink in uplinks().values():
        if uplink.address is not None:
            return uplink.address
    raise HostError(NO_PUBLIC_ADDRESS)


def look(asked: Address | None, without: str) -> HostView:
    """Reads the host's network without the interface `without`, the tunnel. `asked`: an address to find the places of.

    Raises HostError.
    """
    with _errors_named(), routing_socket() as route:
        names = _Names(route)
        own = [each for each in _addresses(route) if names.name(each.ifindex) != without]
        ways = ((version, _way_out(route, version)) for version in FAMILIES)
        found = {version: _uplink(version, names, way, own) for version, way in ways if way is not None}
        known = {version: uplink for version, uplink in found.items() if uplink and uplink.interface != without}
        places = () if asked is None else tuple(_places(route, names, asked, own, known))
        return HostView(known, frozenset(each.address for each in own), asked, places)


@contextmanager
def _errors_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostError(f"the host's addresses and routes cannot be read: {error.strerror or error}") from error


def leads_out(index: int) -> bool:
    """Tells whether a route to the internet leads out by an interface. IPv4. Raises HostError.

    With the interface given, the kernel answers even where none does: it takes all for neighbours. A gateway tells; a
    link without neighbours has the other end alone.
    """
    with _errors_named(), routing_socket() as route:
        ways = (_way(route, to, oif=index) for to in INTERNET[4])
        if any(way is not None and way.gateway and way.ifindex == index for way in ways):
            return True
        found = _Names(route).get(index)
        return found is not None and not found.neighbours


class _Names:
    """Reads links by index, each once."""

    def __init__(self, route: RoutingSocket) -> None:
        self._route = route
        self._known: dict[int, _Interface | None] = {}

    def get(self, ifindex: int) -> _Interface | None:
        """Returns None for one that has gone meanwhile."""
        if ifindex not in self._known:
            self._known[ifindex] = _interface(self._route, ifindex)
        return self._known[ifindex]

    def name(self, ifindex: int) -> str | None:
        found = self.get(ifindex)
        return None if found is None else found.name


def _interface(route: RoutingSocket, ifindex: int) -> _Interface | None:
    try:
        payload = route.ask(constants.RTM_GETLINK, _IFINFOMSG.pack(socket.AF_UNSPEC, 0, ifindex, 0, 0))
    except OSError as error:
        if error.errno in NO_WAY:
            return None
        raise
    flags = _IFINFOMSG.unpack_from(payload)[3]
    has = dict(attributes(payload[_IFINFOMSG.size :]))
    kind = dict(attributes(has.get(constants.IFLA_LINKINFO, b""))).get(constants.IFLA_INFO_KIND, b"")
    alias = bool(flags & constants.IFF_LOOPBACK) or _text(kind) in ALIAS_KINDS
    name, mtu = _text(has[constants.IFLA_IFNAME]), _NUMBER.unpack(has[constants.IFLA_MTU])[0]
    return _Interface(name, mtu, alias, not flags & constants.IFF_NOARP)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")


def _addresses(route: RoutingSocket) -> list[HostAddress]:
    return [
        found
        for payload in route.dump(constants.RTM_GETADDR, _IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
        if (found := _host_address(payload)) is not None
    ]


def _host_address(payload: bytes) -> HostAddress | None:
    _, length, flags, scope, ifindex = _IFADDRMSG.unpack_from(payload)
    has = dict(attributes(payload[_IFADDRMSG.size :]))
    local, other = has.get(constants.IFA_LOCAL), has.get(constants.IFA_ADDRESS)
    packed = local or other
    if not packed:
        return None
    if constants.IFA_FLAGS in has:  # all of them: the header has room for the first eight
        (flags,) = _NUMBER.unpack(has[constants.IFA_FLAGS])
    peer = local is not None and other not in (None, local)
    return HostAddress(ifindex, ip_address(packed), length, scope, flags, peer)


def _way_out(route: RoutingSocket, version: int) -> _Way | None:
    """Returns by which interface most addresses of the internet are reached; None: none is."""
    ways = [way for to in INTERNET[version] if (way := _way(route, to)) is not None]
    return Counter(ways).most_common(1)[0][0] if ways else None


def _way(route: RoutingSocket, to: Address, source: Address | None = None, oif: int = 0) -> _Way | None:
    """Returns the kernel's way to an address, as for an unmarked packet of the host's own; None if it has none."""
    length = to.max_prefixlen
    body = _RTMSG.pack(FAMILIES[to.version], length, 0 if source is None else length, 0, 0, 0, 0, 0, 0)
    body += attribute(constants.RTA_DST, to.packed)
    body += b"" if source is None else attribute(constants.RTA_SRC, source.packed)
    body += attribute(constants.RTA_OIF, _NUMBER.pack(oif)) if oif else b""
    try:
        payload = route.ask(constants.RTM_GETROUTE, body)
    except OSError as error:
        if error.errno in NO_WAY:
            return None
        raise
    has = dict(attributes(payload[_RTMSG.size :]))
    if _RTMSG.unpack_from(payload)[7] != constants.RTN_UNICAST or constants.RTA_OIF not in has:
        return None
    prefsrc = has.get(constants.RTA_PREFSRC)
    gateway = constants.RTA_GATEWAY in has or constants.RTA_VIA in has
    ifindex = _NUMBER.unpack(has[constants.RTA_OIF])[0]
    return _Way(ifindex, ip_address(prefsrc) if prefsrc else None, gateway, _route_mtu(has))


def _route_mtu(has: Mapping[int, bytes]) -> int | None:
    """Returns the MTU that a route has of its own: an operator's, or of IPv6 a router's advertisement."""
    mtu = dict(attributes(has.get(constants.RTA_METRICS, b""))).get(constants.RTAX_MTU, b"")
    return int(_NUMBER.unpack(mtu)[0]) if len(mtu) == _NUMBER.size else None


def _uplink(version: int, names: _Names, way: _Way, own: Sequence[HostAddress]) -> Uplink | None:
    interface = names.get(way.ifindex)
    if interface is None:
        return None
    mtu = min(interface.mtu, way.mtu or interface.mtu)
    return Uplink(interface.name, mtu, lasting(version, way.source, way.ifindex, own), way.ifindex)


def _places(
    route: RoutingSocket, names: _Names, asked: Address, own: Sequence[HostAddress], known: Mapping[int, Uplink]
) -> Iterator[str]:
    """Yields the interfaces by which packets from an address may leave: those of links that have it.

    An address on a link that leads nowhere (a loopback, a failover address of its own) belongs to the interface by
    which the kernel sends from it.
    """
    holders = [each for each in own if each.address == asked]
    carrying = [each for each in holders if _carries(route, names, each)]
    for each in carrying:
        if (name := names.name(each.ifindex)) is not None:
            yield name
    if holders and not carrying:
        way = _way(route, INTERNET[asked.version][0], source=asked)
        name = None if way is None else names.name(way.ifindex)
        uplink = known.get(asked.version)
        if name is not None:
            yield name
        elif uplink is not None:
            yield uplink.interface


def _carries(route: RoutingSocket, names: _Names, held: HostAddress) -> bool:
    interface = names.get(held.ifindex)
    if interface is None:
        return False
    if held.has_neighbours and not interface.alias:
        return True
    # With the interface given, the kernel answers for IPv4 even where no route leads out by it; a gateway tells.
    way = _way(route, INTERNET[held.address.version][0], oif=held.ifindex)
    return way is not None and way.gateway and way.ifindex == held.ifindex
