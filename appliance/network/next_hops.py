"""Reads the kernel's next hop objects (ip nexthop), which routes may name in place of an interface. Blocking."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from appliance.network.netlink import constants
from appliance.network.netlink.codec import attributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from appliance.network.netlink.routing import RoutingSocket

_NHMSG = struct.Struct("=BBBBI")  # family, scope, protocol, reserved, flags
_MEMBER = struct.Struct("=IBBH")  # struct nexthop_grp: id, weight, its high byte, reserved
_NUMBER = struct.Struct("=I")


def interfaces_by_id(route: RoutingSocket) -> Mapping[int, frozenset[int]]:
    """Returns the indexes of the interfaces of each object: of a group, those of its members. Raises OSError."""
    hops, groups = dict[int, frozenset[int]](), dict[int, list[int]]()
    for payload in route.dump(constants.RTM_GETNEXTHOP, _NHMSG.pack(0, 0, 0, 0, 0)):
        has = dict(attributes(payload[_NHMSG.size :]))
        (number,) = _NUMBER.unpack(has[constants.NHA_ID])
        if constants.NHA_GROUP in has:
            groups[number] = list(_members(has[constants.NHA_GROUP]))
        elif constants.NHA_OIF in has:  # a blackhole has none
            hops[number] = frozenset(_NUMBER.unpack(has[constants.NHA_OIF]))
    # Groups of groups there are none (net/ipv4/nexthop.c, nh_check_attr_group).
    nothing = frozenset[int]()
    return hops | {group: nothing.union(*(hops.get(each, nothing) for each in of)) for group, of in groups.items()}


def _members(group: bytes) -> Iterator[int]:
    for number, *_ in _MEMBER.iter_unpack(group[: len(group) // _MEMBER.size * _MEMBER.size]):
        yield number
