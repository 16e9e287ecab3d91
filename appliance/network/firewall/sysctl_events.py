"""Watches for changes of the host's forwarding and reverse path filter (RTNLGRP_IPV4_NETCONF and _IPV6_NETCONF).

The other sysctls that the exit needs have no events.
"""

from __future__ import annotations

from appliance.network.netlink import constants
from appliance.network.netlink.codec import Event, attributes
from appliance.network.netlink.events import NetlinkEvents

_NETCONFMSG_SIZE = 4  # family, padded


def forwarding_events() -> NetlinkEvents:
    groups = (constants.RTNLGRP_IPV4_NETCONF, constants.RTNLGRP_IPV6_NETCONF)
    return NetlinkEvents(constants.NETLINK_ROUTE, sum(1 << (group - 1) for group in groups), _concerns)


def _concerns(event: Event) -> bool:
    """Concerns the host, any interface, and what later ones begin with."""
    settings = dict(attributes(event.payload[_NETCONFMSG_SIZE:]))
    concerning = {constants.NETCONFA_FORWARDING, constants.NETCONFA_RP_FILTER}
    return event.kind == constants.RTM_NEWNETCONF and not concerning.isdisjoint(settings)
