"""Watches what the exit rests on: the host's addresses, links, default routes and policy rules, the tunnel's routes."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from appliance.network.netlink import constants
from appliance.network.netlink.codec import attributes
from appliance.network.netlink.events import NetlinkEvents
from appliance.network.uplinks import INTERNET

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from appliance.network.netlink.codec import Event

_RTMSG = struct.Struct("=BBBBBBBBI")  # family, destination and source length, tos, table, protocol, scope, type, flags
_INDEX = struct.Struct("=I")
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_ALWAYS = frozenset(
    {
        *(constants.RTM_NEWLINK, constants.RTM_DELLINK, constants.RTM_NEWADDR, constants.RTM_DELADDR),
        *(constants.RTM_NEWRULE, constants.RTM_DELRULE, constants.RTM_NEWNEXTHOP, constants.RTM_DELNEXTHOP),
    }
)
_GROUPS = (
    *(constants.RTNLGRP_LINK, constants.RTNLGRP_IPV4_IFADDR, constants.RTNLGRP_IPV6_IFADDR),
    *(constants.RTNLGRP_IPV4_ROUTE, constants.RTNLGRP_IPV6_ROUTE),
    *(constants.RTNLGRP_IPV4_RULE, constants.RTNLGRP_IPV6_RULE, constants.RTNLGRP_NEXTHOP),
)
# By which way these are reached decides; a VPN may have many routes, of all lengths, in place of a default one.
_ASKED = {_FAMILIES[version]: [address.packed for address in asked] for version, asked in INTERNET.items()}
# A default route in pieces: the two halves of a VPN that leaves the host's own in place, IPv6's 2000::/3.
_PIECES_OF_DEFAULT = 3


def host_events(
    interface_name: str, changed: Callable[[], None], subnets: Sequence[IPv4Network | IPv6Network] = ()
) -> NetlinkEvents:
    """Wakes when what the host gives the exit may have changed, after it has called `changed`.

    Of routes only default ones, those to an address that the kernel is asked about, those of the interface, those into
    its `subnets` and the kernel's own concern: a router may change thousands of others a second.
    """
    inside = [(_FAMILIES[net.version], net.network_address.packed, net.prefixlen) for net in subnets]

    def concerns(event: Event) -> bool:
        concerned = event.kind in _ALWAYS or _is_route_of_the_exit(event, interface_name, inside)
        if concerned:
            changed()
        return concerned

    return NetlinkEvents(constants.NETLINK_ROUTE, sum(1 << (group - 1) for group in _GROUPS), concerns, changed)


def _is_route_of_the_exit(event: Event, interface_name: str, inside: Sequence[tuple[int, bytes, int]]) -> bool:
    if event.kind not in (constants.RTM_NEWROUTE, constants.RTM_DELROUTE) or len(event.payload) < _RTMSG.size:
        return False
    family, length, _, _, _, protocol, *_ = _RTMSG.unpack_from(event.payload)
    if protocol == constants.RTPROT_KERNEL:
        # Of an address or a link, whose own events come before (net/ipv4/devinet.c, __inet_insert_ifa).
        return True
    has = dict(attributes(event.payload[_RTMSG.size :]))
    out, to = has.get(constants.RTA_OIF, b""), has.get(constants.RTA_DST, b"")
    if length <= _PIECES_OF_DEFAULT or any(_is_within(family, to, length, net) for net in inside):
        return True
    if any(_is_within(family, address, 8 * len(address), (family, to, length)) for address in _ASKED.get(family, ())):
        return True
    return len(out) == _INDEX.size and _INDEX.unpack(out)[0] == _index(interface_name)


def _is_within(family: int, destination: bytes, length: int, net: tuple[int, bytes, int]) -> bool:
    net_family, address, prefix_length = net
    if family != net_family or length < prefix_length or len(destination) != len(address):
        return False
    differing = int.from_bytes(destination, "big") ^ int.from_bytes(address, "big")
    return differing >> (8 * len(address) - prefix_length) == 0


def _index(interface_name: str) -> int:
    try:
        return socket.if_nametoindex(interface_name)
    except OSError:
        return 0  # no interface has this index; its removal is an event of its own
