"""Asks the kernel whether it routes clients' packets from the tunnel to the internet and back. Blocking.

Policy rules and routes of other programs may take them elsewhere, and are not the appliance's to remove. The kernel's
own lookup (RTM_GETROUTE with an incoming interface) is the one answer that has all of them in it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from itertools import islice
from typing import TYPE_CHECKING

from appliance.network import singled_out
from appliance.network.netlink import constants
from appliance.network.netlink.codec import attribute, attributes
from appliance.network.netlink.routing import RoutingSocket, routing_socket

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from ipaddress import IPv4Network, IPv6Network

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
# Addresses that nothing is sent to: a root server, to which a host has no route of its own.
INTERNET: Mapping[int, Address] = {4: IPv4Address("198.41.0.4"), 6: IPv6Address("2001:503:ba3e::2:30")}
MOST_ROUTES = 20_000  # of a table that is searched: more has a router of the internet's, to which no client's belong
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, destination and source length, tos, table, protocol, scope, type, flags
_NUMBER = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Way:
    """Holds the kernel's answer: the index of the outgoing interface, or the errno of its refusal.

    `here`: the host takes what goes there for itself.
    """

    index: int | None
    refusal: int = 0
    here: bool = False


def routing_fault(tunnel: str, subnets: Sequence[Network], mark: int = 0) -> str | None:
    """Returns why clients' packets do not pass this host's routing; None: they pass. Raises OSError.

    `tunnel`: its interface, which is up. `mark`: of packets that the table has let in.
    """
    own = socket.if_nametoindex(tunnel)
    with routing_socket(strict=True) as route:
        for subnet in subnets:
            if (fault := _fault(route, (tunnel, own, mark), subnet)) is not None:
                return f"clients' IPv{subnet.version} traffic does not pass: {fault}"
    return None


def _fault(route: RoutingSocket, entry: tuple[str, int, int], subnet: Network) -> str | None:
    fault = _lookup_fault(route, entry, subnet[singled_out.FIRST_CLIENT])
    if fault is not None:
        return fault
    family = FAMILIES[subnet.version]
    routes = route.dump(constants.RTM_GETROUTE, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
    rules = route.dump(constants.RTM_GETRULE, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
    if len(routes) > MOST_ROUTES:
        routes = []
    fault = next((told for payload in routes for told in _elsewhere(payload, entry[1], subnet)), None)
    if fault is not None:
        return fault
    parts = dict.fromkeys((*singled_out.by_routes(routes, subnet), *singled_out.by_rules(rules, subnet)))
    faults = (_own_fault(route, client) or _lookup_fault(route, entry, client) for client in parts)
    return next((fault for fault in islice(faults, singled_out.MOST) if fault is not None), None)


def _own_fault(route: RoutingSocket, client: Address) -> str | None:
    return f"{client} is an address of this host; see ip address show to {client}" if _way(route, client).here else None


def _lookup_fault(route: RoutingSocket, entry: tuple[str, int, int], client: Address) -> str | None:
    tunnel, own, mark = entry
    there = INTERNET[client.version]
    out = _way(route, there, client, own, mark)
    if out.index is None:
        if _way(route, there).index is None:
            return None  # the host itself has no way either
        return _told(out, there, client, tunnel)
    if out.index == own:
        return _told(out, there, client, tunnel)
    # With the mark, as the table gives it to answers where the kernel asks for the way back (rp_filter).
    back = _way(route, client, there, out.index, mark)
    if back.index == own:
        return None
    return _told(back, client, there, _name(out.index))


def _told(way: Way, to: Address, source: Address, into: str) -> str:
    does = f"refuses ({os.strerror(way.refusal)})" if way.index is None else f"sends out of {_name(way.index)}"
    return (
        f"this host's routing {does} what comes in by {into} from {source} to {to}; see ip rule, and "
        f"ip route get {to} from {source} iif {into}"
    )


def _way(route: RoutingSocket, to: Address, source: Address | None = None, into: int = 0, mark: int = 0) -> Way:
    length = to.max_prefixlen
    body = _RTMSG.pack(FAMILIES[to.version], length, 0 if source is None else length, 0, 0, 0, 0, 0, 0)
    body += attribute(constants.RTA_DST, to.packed)
    if source is not None:
        body += attribute(constants.RTA_SRC, source.packed) + attribute(constants.RTA_IIF, _NUMBER.pack(into))
    body += attribute(constants.RTA_MARK, _NUMBER.pack(mark)) if mark else b""
    try:
        payload = route.ask(constants.RTM_GETROUTE, body)
    except TimeoutError:
        raise
    except OSError as error:
        return Way(None, error.errno or errno.EINVAL)
    kind, index = _RTMSG.unpack_from(payload)[7], dict(attributes(payload[_RTMSG.size :])).get(constants.RTA_OIF)
    if kind != constants.RTN_UNICAST or index is None:
        return Way(None, errno.EHOSTUNREACH, kind == constants.RTN_LOCAL)
    return Way(_NUMBER.unpack(index)[0])


def _elsewhere(payload: bytes, own: int, subnet: Network) -> Iterator[str]:
    """Tells of a route of the main table that takes part of the subnet elsewhere."""
    family, length, _, _, table, _, _, kind, _ = _RTMSG.unpack_from(payload)
    has = dict(attributes(payload[_RTMSG.size :]))
    if family != FAMILIES[subnet.version] or table != constants.RT_TABLE_MAIN or length <= subnet.prefixlen:
        return
    index = has.get(constants.RTA_OIF)
    if kind == constants.RTN_UNICAST and index == _NUMBER.pack(own):
        return
    destination = ip_network((has.get(constants.RTA_DST, bytes(len(subnet[0].packed))), length))
    if destination.network_address in subnet:
        where = "nowhere" if index is None else f"out of {_name(_NUMBER.unpack(index)[0])}"
        yield f"a route of this host takes {destination} {where}; see ip route show {destination}"


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"interface {index}"
