"""Waiting for something to happen to one network interface or its addresses (rtnetlink multicast groups)."""

from __future__ import annotations

import socket
import struct

from appliance.netlink_events import Event, NetlinkEvents, text_attribute
from appliance.wireguard import linux

_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index


def link_events(interface_name: str) -> NetlinkEvents:
    """The interface came, went or changed, or one of its addresses did."""

    def concerns(event: Event) -> bool:
        if event.kind in (linux.RTM_NEWLINK, linux.RTM_DELLINK):
            return text_attribute(event.payload, _IFINFOMSG.size, linux.IFLA_IFNAME) == interface_name
        if event.kind in (linux.RTM_NEWADDR, linux.RTM_DELADDR):
            index: int = _IFADDRMSG.unpack_from(event.payload)[4]
            return index == _index(interface_name)
        return False

    groups = linux.RTMGRP_LINK | linux.RTMGRP_IPV4_IFADDR | linux.RTMGRP_IPV6_IFADDR
    return NetlinkEvents(linux.NETLINK_ROUTE, groups, concerns)


def _index(interface_name: str) -> int:
    try:
        return socket.if_nametoindex(interface_name)
    except OSError:
        return 0  # no interface has it; its going was an event of its own
