"""Removes wg-quick(8)'s routing rules (ip-rule(8)) where it cannot do so itself.

There is a pair of rules per address family: `not fwmark MARK lookup MARK`, and, added next and thus right before it,
`lookup main suppress_prefixlength 0` for all but default routes. Other tunnels have rules like them.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from appliance.client.tunnel import links

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FAMILIES = (socket.AF_INET, socket.AF_INET6)
TABLE_MAIN = 254  # linux/rtnetlink.h RT_TABLE_MAIN
INVERT = 2  # linux/fib_rules.h FIB_RULE_INVERT
# Attributes that the kernel reports for a rule that matches every packet; others are selectors wg-quick does not use.
EVERY_PACKET = {"FRA_TABLE", "FRA_SUPPRESS_PREFIXLEN", "FRA_PRIORITY", "FRA_PROTOCOL"}
MARKED = {"FRA_FWMARK", "FRA_FWMASK"}


def remove(mark: int, remark: Callable[[str], None]) -> None:
    """Removes the rules with this mark, once the interface and with it the routes of table MARK have gone.

    wg-quick picks a number whose table is empty. So if the table has routes, another tunnel uses the number by now,
    and the rules are that tunnel's.
    Raises HostError if rtnetlink fails.
    """
    with links.rtnetlink("cannot remove the rules of routing") as route:
        if any(each.get_attr("RTA_TABLE") == mark for family in FAMILIES for each in route.get_routes(family=family)):
            remark(f"another tunnel has taken the mark {mark} meanwhile: the rules of routing for it stay")
            return
        for family in FAMILIES:
            for rule in _pairs(route.get_rules(family=family), mark):
                route.rule("del", family=family, **rule)


def _pairs(rules: Sequence[Any], mark: int) -> list[dict[str, int]]:
    """Returns each rule as the kernel is asked to delete it. The kernel deletes the first match of a priority, so a
    rule that shares its priority with another one is left in place."""
    shown = [(rule, dict(rule["attrs"])) for rule in rules]
    priorities = [fields.get("FRA_PRIORITY", 0) for _, fields in shown]
    own = [
        fields["FRA_PRIORITY"]
        for rule, fields in shown
        if fields.get("FRA_FWMARK") == fields.get("FRA_TABLE") == mark
        and rule["flags"] == INVERT
        and fields.keys() <= EVERY_PACKET | MARKED
    ]
    before = [
        fields["FRA_PRIORITY"]
        for rule, fields in shown
        if (fields.get("FRA_TABLE"), fields.get("FRA_SUPPRESS_PREFIXLEN")) == (TABLE_MAIN, 0)
        and rule["flags"] == 0
        and fields.keys() <= EVERY_PACKET
        and fields.get("FRA_PRIORITY", 0) + 1 in own
    ]
    deletable = [{"priority": priority, "table": mark, "fwmark": mark} for priority in own]
    deletable += [{"priority": priority, "table": TABLE_MAIN} for priority in before]
    return [rule for rule in deletable if priorities.count(rule["priority"]) == 1]
