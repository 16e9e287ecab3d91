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

from appliance.domain.errors import HostError
from appliance.network.netlink import constants
from appliance.network.netlink.codec import attributes
from appliance.network.netlink.routing import routing_socket

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOOPBACK = "lo"
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, destination and source length, tos, table, protocol, scope, type, flags
_NEXT_HOP = struct.Struct("=HBBI")  # length, flags, hops, interface
_INDEX = struct.Struct("=I")
_BRIDGE = "bridge"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Names interfaces: those by which clients' packets may leave in IPv4, and the bridges among all."""

    interfaces: frozenset[str]
    bridges: frozenset[str]


def read_outgoing(tunnel: str, blocked: Sequence[IPv4Network], *, all_interfaces: bool) -> Outgoing:
    """Reads them, but the tunnel. Clients may not send to `blocked`. Raises HostError."""
    names = dict(_interfaces())
    if all_interfaces:
        found = frozenset(names.values())
    else:
        try:
            found = frozenset(names[index] for index in _indexes(blocked) if index in names)
        except OSError as error:
            raise HostError(f"the host's routes cannot be read: {error.strerror or error}") from error
    bridges = frozenset(name for name in names.values() if Path("/sys/class/net", name, _BRIDGE).is_dir())
    return Outgoing(found - {tunnel, LOOPBACK}, bridges)


def _interfaces() -> list[tuple[int, str]]:
    try:
        return socket.if_nameindex()
    except OSError as error:
        raise HostError(f"the host's interfaces cannot be read: {error.strerror}") from error


def _indexes(blocked: Sequence[IPv4Network]) -> set[int]:
    request = _RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, constants.RTN_UNICAST, 0)
    with routing_socket(strict=True) as route:
        return {index for payload in route.dump(constants.RTM_GETROUTE, request) for index in _ways(payload, blocked)}


def _ways(route: bytes, blocked: Sequence[IPv4Network]) -> Iterator[int]:
    """Returns the interfaces by which a route leads; none if clients may not send to any of its addresses."""
    family, length, _, _, _, _, _, kind, _ = _RTMSG.unpack_from(route)
    if (family, kind) != (socket.AF_INET, constants.RTN_UNICAST):
        return
    has = dict(attributes(route[_RTMSG.size :]))
    destination = IPv4Network((has.get(constants.RTA_DST, bytes(4)), length))
    if any(destination.subnet_of(network) for network in blocked):
        return
    if constants.RTA_OIF in has:
        yield _INDEX.unpack(has[constants.RTA_OIF])[0]
    hops = has.get(constants.RTA_MULTIPATH, b"")
    while len(hops) >= _NEXT_HOP.size:
        size, _, _, index = _NEXT_HOP.unpack_from(hops)
        if size < _NEXT_HOP.size:
            return
        yield index
        hops = hops[(size + 3) & ~3 :]
