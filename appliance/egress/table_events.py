"""Waiting for somebody to change our nftables table (the multicast group NFNLGRP_NFTABLES)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.egress.ruleset import TABLE
from appliance.netlink_events import Event, NetlinkEvents, text_attribute
from appliance.wireguard import linux

if TYPE_CHECKING:
    from collections.abc import Callable


def table_events(changed: Callable[[int], bool], lost: Callable[[], None]) -> NetlinkEvents:
    """`changed` is told the netlink port of whoever changed the table, or what is in it, and says whether it
    counts. `lost`: anybody may have."""

    def concerns(event: Event) -> bool:
        if event.kind >> 8 != linux.NFNL_SUBSYS_NFTABLES or event.payload[0] != linux.NFPROTO_INET:
            return False
        # Attribute 1 is the table's name in every message about a table, its chains, rules, sets, elements and objects.
        name = text_attribute(event.payload, linux.NFGENMSG_SIZE, linux.NFTA_TABLE_NAME)
        return name == TABLE and changed(event.port)

    return NetlinkEvents(linux.NETLINK_NETFILTER, 1 << (linux.NFNLGRP_NFTABLES - 1), concerns, lost)
