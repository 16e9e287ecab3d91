"""Reads and restores the routes that the kernel adds with an interface's addresses. Blocking."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from appliance.network.netlink import constants
from appliance.network.netlink.codec import attribute, attributes
from appliance.network.netlink.routing import routing_socket
from appliance.network.wireguard.tunnel import Prefix

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from appliance.network.netlink.routing import RoutingSocket

_RTMSG = struct.Struct("=BBBBBBBBI")  # family, destination and source length, tos, table, protocol, scope, type, flags
_NUMBER = struct.Struct("=I")
_SIZES = {socket.AF_INET: 4, socket.AF_INET6: 16}
_IPV6_METRIC = 256  # linux/ipv6_route.h IP6_RT_PRIO_ADDRCONF, of the routes that the kernel adds


def read_routes(route: RoutingSocket, index: int) -> frozenset[Prefix]:
    """Returns the networks that the main table reaches directly by an interface. Raises OSError.

    `route`: a strict socket.
    """
    return frozenset(
        network
        for family in _SIZES
        for payload in route.dump(constants.RTM_GETROUTE, _request(family, index))
        for network in _network(payload, index)
    )


def _request(family: int, index: int) -> bytes:
    """Returns a request that the kernel filters itself (since Linux 4.20): a router's tables are large."""
    header = _RTMSG.pack(family, 0, 0, 0, constants.RT_TABLE_MAIN, 0, 0, constants.RTN_UNICAST, 0)
    return header + attribute(constants.RTA_OIF, _NUMBER.pack(index))


def _network(route: bytes, index: int) -> Iterator[Prefix]:
    family, length, _, _, table, _, _, kind, _ = _RTMSG.unpack_from(route)
    has = dict(attributes(route[_RTMSG.size :]))
    direct = constants.RTA_GATEWAY not in has and constants.RTA_VIA not in has
    ours = has.get(constants.RTA_OIF) == _NUMBER.pack(index) and (table, kind) == (
        constants.RT_TABLE_MAIN,
        constants.RTN_UNICAST,
    )
    if direct and ours and family in _SIZES:
        yield Prefix(has.get(constants.RTA_DST, bytes(_SIZES[family])), length)


def add_routes(index: int, own: Iterable[Prefix]) -> None:
    """Adds the routes that come with these addresses, as the kernel does. Raises OSError."""
    with routing_socket() as route:
        for address in own:
            try:
                # Neither exclusive nor replacing: ahead of another program's route to the same network, which stays.
                route.change(constants.RTM_NEWROUTE, constants.NLM_F_CREATE, _route(index, address))
            except FileExistsError:
                continue


def _route(index: int, own: Prefix) -> bytes:
    network, ipv4 = own.network, len(own.address) == 4
    header = _RTMSG.pack(
        socket.AF_INET if ipv4 else socket.AF_INET6,
        network.length,
        0,
        0,
        constants.RT_TABLE_MAIN,
        constants.RTPROT_KERNEL,
        constants.RT_SCOPE_LINK if ipv4 else 0,
        constants.RTN_UNICAST,
        0,
    )
    # IPv4's has the source address (net/ipv4/fib_frontend.c, fib_add_ifaddr), IPv6's a metric.
    more = (
        attribute(constants.RTA_PREFSRC, own.address)
        if ipv4
        else attribute(constants.RTA_PRIORITY, _NUMBER.pack(_IPV6_METRIC))
    )
    return (
        header
        + attribute(constants.RTA_DST, network.address)
        + attribute(constants.RTA_OIF, _NUMBER.pack(index))
        + more
    )
