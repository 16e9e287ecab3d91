"""Watches for changes of the host's forwarding (multicast groups RTNLGRP_IPV4_NETCONF and _IPV6_).

The other sysctls that the exit needs have no events.
"""

from __future__ import annotations

import struct

from appliance.network.netlink import constants
from appliance.network.netlink.codec import Event, attributes
from appliance.network.netlink.events import NetlinkEvents

_NETCONFMSG_SIZE = 4  # family, padded
_ALL = struct.pack("=i", constants.NETCONFA_IFINDEX_ALL)


def forwarding_events() -> NetlinkEvents:
    groups = (constants.RTNLGRP_IPV4_NETCONF, constants.RTNLGRP_IPV6_NETCONF)
    return NetlinkEvents(constants.NETLINK_ROUTE, sum(1 << (group - 1) for group in groups), _concerns)


def _concerns(event: Event) -> bool:
    """Ignores the per-interface events: they follow the host-wide one."""
    settings = dict(attributes(event.payload[_NETCONFMSG_SIZE:]))
    switched = event.kind == constants.RTM_NEWNETCONF and constants.NETCONFA_FORWARDING in settings
    return switched and settings.get(constants.NETCONFA_IFINDEX) == _ALL
