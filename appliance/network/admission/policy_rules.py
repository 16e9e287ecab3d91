"""Defines the routing policy rules (ip-rule(8)) that prohibit what the table did not mark. Pure: bytes in and out.

Packets from the tunnel that have the mark go on to the host's own rules, all others are prohibited. No rule here looks
a route up: what the operator routes otherwise stays so.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.network.netlink import constants
from appliance.network.netlink.codec import attribute, attributes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# linux/fib_rules.h, struct fib_rule_hdr: family, 2 lengths of prefixes, tos, table, 2 reserved, action, flags
_HEADER = struct.Struct("=8BI")
_NUMBER = struct.Struct("=I")
OUR_ACTIONS = (constants.FR_ACT_GOTO, constants.FR_ACT_NOP, constants.FR_ACT_PROHIBIT)
SPAN = 3  # priorities


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """Describes a rule. `interface`: the incoming one, empty for all; `target`: the priority to go on at."""

    family: int
    priority: int
    action: int
    interface: str = ""
    mark: int = 0
    mask: int = 0
    target: int = 0
    table: int = 0

    @property
    def is_local(self) -> bool:
        """Tells whether it delivers what is addressed to the host itself."""
        return self.action == constants.FR_ACT_TO_TBL and self.table == constants.RT_TABLE_LOCAL


def wanted(families: Iterable[int], interface: str, mark: int, priority: int) -> list[PolicyRule]:
    """Returns the rules of each IP version, in the order in which to add them: admitted packets lose no route."""
    return [
        rule
        for family in families
        for rule in (
            PolicyRule(family, priority + 2, constants.FR_ACT_NOP, interface),
            PolicyRule(family, priority, constants.FR_ACT_GOTO, interface, mark, mark, priority + 2),
            PolicyRule(family, priority + 1, constants.FR_ACT_PROHIBIT, interface),
        )
    ]


def is_ours(rule: PolicyRule, interface: str) -> bool:
    """Tells whether the rule is of this exit. An operator's rule for the interface looks a route up."""
    return rule.interface == interface and rule.action in OUR_ACTIONS


def changes(
    present: Iterable[PolicyRule], rules: Collection[PolicyRule], interface: str
) -> tuple[list[PolicyRule], list[PolicyRule]]:
    """Returns the rules to add, in their order, and then those to remove, the prohibiting ones first."""
    ours = [rule for rule in present if is_ours(rule, interface)]
    missing = [rule for rule in rules if rule not in ours]
    excess = [rule for rule in ours if rule not in rules]
    excess += [rule for rule in rules for _ in range(ours.count(rule) - 1)]
    return missing, sorted(excess, key=lambda rule: rule.action != constants.FR_ACT_PROHIBIT)


def encode(rule: PolicyRule) -> bytes:
    """Renders the body of a request to add or remove the rule."""
    header = _HEADER.pack(rule.family, 0, 0, 0, 0, 0, 0, rule.action, 0)
    numbers = [(constants.FRA_PRIORITY, rule.priority)]
    if rule.mask:
        numbers += [(constants.FRA_FWMARK, rule.mark), (constants.FRA_FWMASK, rule.mask)]
    if rule.target:
        numbers.append((constants.FRA_GOTO, rule.target))
    body = b"".join(attribute(kind, _NUMBER.pack(number)) for kind, number in numbers)
    return header + attribute(constants.FRA_IIFNAME, rule.interface.encode("ascii") + b"\0") + body


def parse(payload: bytes) -> PolicyRule | None:
    """Parses a rule as the kernel lists it; None if it is truncated."""
    if len(payload) < _HEADER.size:
        return None
    family, *_, table, _, _, action, _ = _HEADER.unpack_from(payload)
    fields = dict(attributes(payload[_HEADER.size :]))

    def number(kind: int) -> int:
        value = fields.get(kind, b"")
        return int(_NUMBER.unpack(value)[0]) if len(value) == _NUMBER.size else 0

    return PolicyRule(
        family=family,
        priority=number(constants.FRA_PRIORITY),
        action=action,
        interface=fields.get(constants.FRA_IIFNAME, b"").rstrip(b"\0").decode("utf-8", "replace"),
        mark=number(constants.FRA_FWMARK),
        mask=number(constants.FRA_FWMASK),
        target=number(constants.FRA_GOTO),
        table=number(constants.FRA_TABLE) or table if action == constants.FR_ACT_TO_TBL else 0,
    )
