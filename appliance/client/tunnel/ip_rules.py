"""wg-quick(8)'s rules of routing (ip-rule(8)), taken away where it cannot do so itself.

A pair in each family: `not fwmark MARK lookup MARK`, and right before it, added next, `lookup main
suppress_prefixlength 0` for routes that are no default route. Other tunnels have rules like them.
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
# What the kernel tells of a rule for every packet; another attribute is a selector that wg-quick does not use.
EVERY_PACKET = {"FRA_TABLE", "FRA_SUPPRESS_PREFIXLEN", "FRA_PRIORITY", "FRA_PROTOCOL"}
MARKED = {"FRA_FWMARK", "FRA_FWMASK"}


def remove(mark: int, remark: Callable[[str], None]) -> None:
    """Once the interface has gone, and with it its routes in the table that has the number of the mark. wg-quick takes
    a number whose table is empty: one that has routes is another tunnel's by now, and so are the rules. Raises
    HostError."""
    with links.rtnetlink("cannot remove the rules of routing") as route:
        if any(found.get_attr("RTA_TABLE") == mark for family in FAMILIES for found in route.get_routes(family=family)):
            remark(f"another tunnel has taken the mark {mark} meanwhile: the rules of routing for it stay")
            return
        for family in FAMILIES:
            for rule in _pairs(route.get_rules(family=family), mark):
                route.rule("del", family=family, **rule)


def _pairs(rules: Sequence[Any], mark: int) -> list[dict[str, int]]:
    """Each as the kernel is asked to delete it, which takes the first of that priority that is like it: where another
    has the same priority, it stays."""
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
    found = [{"priority": priority, "table": mark, "fwmark": mark} for priority in own]
    found += [{"priority": priority, "table": TABLE_MAIN} for priority in before]
    return [rule for rule in found if priorities.count(rule["priority"]) == 1]
