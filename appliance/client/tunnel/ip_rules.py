"""Removes wg-quick(8)'s routing rules (ip-rule(8)) where it cannot do so itself, and adds what it lacks for IPv6.

There is a pair of rules per address family: `not fwmark MARK lookup MARK`, and, added next and thus right before it,
`lookup main suppress_prefixlength 0` for all but default routes. Other tunnels have rules like them.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from appliance.client.tunnel import links

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FAMILIES = (socket.AF_INET, socket.AF_INET6)
TABLE_MAIN = 254  # linux/rtnetlink.h RT_TABLE_MAIN
INVERT = 2  # linux/fib_rules.h FIB_RULE_INVERT
PROHIBIT = 8  # likewise FR_ACT_PROHIBIT
LAST_FREE = 32764  # the highest priority of two rules in a row before the main table's, 32766
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


def prohibit_ipv6(mark: int) -> None:
    """Prohibits IPv6 beyond this machine's own networks, except for packets with this mark.

    For a tunnel without IPv6: a machine may still have it, on an interface that was there before it was disabled.
    Raises HostError if rtnetlink fails.
    """
    with links.rtnetlink("cannot keep IPv6 from leaving outside the tunnel") as route:
        shown = [dict(rule["attrs"]).get("FRA_PRIORITY", 0) for rule in route.get_rules(family=socket.AF_INET6)]
        free = next(at for at in range(LAST_FREE, 0, -1) if at not in shown and at + 1 not in shown)
        route.rule("add", family=socket.AF_INET6, action=PROHIBIT, fwmark=mark, flags=INVERT, priority=free + 1)
        route.rule("add", family=socket.AF_INET6, table=TABLE_MAIN, suppress_prefixlen=0, priority=free)


def allow_ipv6(mark: int) -> None:
    """Removes what `prohibit_ipv6` has added; wg-quick may have removed a part. Raises HostError if rtnetlink fails."""
    with links.rtnetlink("cannot remove the rules that keep IPv6 from leaving") as route:
        shown = [(rule, dict(rule["attrs"])) for rule in route.get_rules(family=socket.AF_INET6)]
        own = [
            fields["FRA_PRIORITY"]
            for rule, fields in shown
            if (rule["action"], rule["flags"], fields.get("FRA_FWMARK")) == (PROHIBIT, INVERT, mark)
        ]
        before = [priority - 1 for priority in own]
        for rule, fields in shown:
            priority = fields.get("FRA_PRIORITY", 0)
            if priority in own and rule["action"] == PROHIBIT:
                route.rule("del", family=socket.AF_INET6, action=PROHIBIT, fwmark=mark, priority=priority)
            elif priority in before and _suppresses(rule, fields):
                route.rule("del", family=socket.AF_INET6, table=TABLE_MAIN, priority=priority)


def _suppresses(rule: Any, fields: Mapping[str, Any]) -> bool:
    """Tells whether a rule looks up all but default routes in the main table."""
    return (
        (fields.get("FRA_TABLE"), fields.get("FRA_SUPPRESS_PREFIXLEN")) == (TABLE_MAIN, 0)
        and rule["flags"] == 0
        and fields.keys() <= EVERY_PACKET
    )


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
        if _suppresses(rule, fields) and fields.get("FRA_PRIORITY", 0) + 1 in own
    ]
    deletable = [{"priority": priority, "table": mark, "fwmark": mark} for priority in own]
    deletable += [{"priority": priority, "table": TABLE_MAIN} for priority in before]
    return [rule for rule in deletable if priorities.count(rule["priority"]) == 1]
