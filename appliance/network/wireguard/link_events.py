"""Watches one network interface and its addresses for changes (rtnetlink multicast groups)."""

from __future__ import annotations

import socket
import struct

from appliance.network.netlink import constants
from appliance.network.netlink.codec import Event, text_attribute
from appliance.network.netlink.events import NetlinkEvents

_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index


def link_events(interface_name: str) -> NetlinkEvents:
    """Wakes when the interface or one of its addresses is added, removed or changed."""

    def concerns(event: Event) -> bool:
        if event.kind in (constants.RTM_NEWLINK, constants.RTM_DELLINK):
            return text_attribute(event.payload, _IFINFOMSG.size, constants.IFLA_IFNAME) == interface_name
        if event.kind in (constants.RTM_NEWADDR, constants.RTM_DELADDR):
            index: int = _IFADDRMSG.unpack_from(event.payload)[4]
            return index == _index(interface_name)
        return False

    groups = constants.RTMGRP_LINK | constants.RTMGRP_IPV4_IFADDR | constants.RTMGRP_IPV6_IFADDR
    return NetlinkEvents(constants.NETLINK_ROUTE, groups, concerns)


def _index(interface_name: str) -> int:
    try:
        return socket.if_nametoindex(interface_name)
    except OSError:
        return 0  # no interface has this index; its removal was a separate event
