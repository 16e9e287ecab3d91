"""Watches for changes of the appliance's nftables table, or others (multicast group NFNLGRP_NFTABLES)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network.netlink import constants
from appliance.network.netlink.codec import Event, text_attribute
from appliance.network.netlink.events import NetlinkEvents

if TYPE_CHECKING:
    from collections.abc import Callable


FAMILIES = (constants.NFPROTO_INET, constants.NFPROTO_IPV4, constants.NFPROTO_IPV6)
# linux/netfilter/nf_tables.h: tables, chains and rules, created or deleted. Set elements are not watched.
FILTERING = (0, 2, 3, 5, 6, 8)


def table_events(
    table: Callable[[], str],
    changed: Callable[[int], bool],
    other_changed: Callable[[int], None],
    lost: Callable[[], None],
) -> NetlinkEvents:
    """Watches nftables changes, reported with the netlink port that made them.

    `table` returns the name of the appliance's table. `changed` receives changes of it or its contents, and returns
    whether to wake the waiter; `other_changed` receives changes of other tables, which wake nothing. `lost`: any table
    may have changed.
    """

    def concerns(event: Event) -> bool:
        if event.kind >> 8 != constants.NFNL_SUBSYS_NFTABLES or event.payload[0] not in FAMILIES:
            return False
        # Attribute 1 is the table's name in every message about a table, its chains, rules, sets, elements and objects.
        name = text_attribute(event.payload, constants.NFGENMSG_SIZE, constants.NFTA_TABLE_NAME)
        if event.payload[0] == constants.NFPROTO_INET and name == table():
            return changed(event.port)
        if event.kind & 0xFF in FILTERING:
            other_changed(event.port)
        return False

    return NetlinkEvents(constants.NETLINK_NETFILTER, 1 << (constants.NFNLGRP_NFTABLES - 1), concerns, lost)
