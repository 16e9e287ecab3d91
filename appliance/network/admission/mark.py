"""Chooses the packet mark's bit and the rules' priorities, beside those that other programs use. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError
from appliance.network.admission.policy_rules import SPAN, is_ours

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from appliance.network.admission.policy_rules import PolicyRule

WHOLE = 0xFFFFFFFF
# First those that no known program takes: wg-quick's 0xca6c, Kubernetes' 0xc000, Tailscale's 0xff0000, Calico's
# 0xffff0000, Cilium's 0xf00 and small numbers, which are set by hand, are next.
CANDIDATES = tuple(1 << n for n in (12, 13, 10, 7, 4, 8, 9, 11, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29))
MAIN = 32766  # the priority of the rule for the main table
# A rule that is added without a priority gets that of the first rule after the local table's, less one
# (net/core/fib_rules.c, fib_default_rule_pref), and wg-quick adds its rules so, the later one to come first. Were ours
# at 1, all of those would be at 0, in the wrong order.
ROOM = 100
_OPTION = re.compile(
    r"--(?:set-x?mark|x?mark|nfmask|ctmask|(?:or|and|xor)-mark) (0x[0-9a-f]+|\d+)(?:/(0x[0-9a-f]+|\d+))?"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """Holds the bit that marks what the table let in, and the priority of the first of the policy rules."""

    bit: int
    priority: int


def is_possible(mark: Mark) -> bool:
    """Tells whether the kernel takes it: one bit, and a priority between those of the tables local and main."""
    return mark.bit in (1 << n for n in range(32)) and mark.priority in range(1, MAIN)


@dataclass(frozen=True, slots=True)
class Others:
    """Holds what other programs use: bits of marks, and priorities, each with the words that name the user.

    `first`: the lowest priority of a rule that may decide on packets from the tunnel.
    """

    bits: Mapping[int, str]
    priorities: Mapping[int, str]
    first: int = MAIN


def others(rules: Iterable[PolicyRule], listing: str, saved: str, interface: str, table: str | None) -> Others:
    """Finds what others use. `listing`: of `nft -j list ruleset`; `saved`: of iptables-save; `table`: our own."""
    foreign = [rule for rule in rules if not is_ours(rule, interface)]
    numbers = [
        *((f"the ip rule of priority {rule.priority}", bits(rule.mark, rule.mask)) for rule in foreign if rule.mask),
        *_in_nftables(listing, table),
        *_in_iptables(saved),
    ]
    used: dict[int, str] = {}
    for user, number in numbers:
        for bit in (1 << n for n in range(32)):
            if number & bit:
                used.setdefault(bit, user)
    taken = {rule.priority: f"an ip rule of priority {rule.priority}" for rule in foreign if rule.priority}
    return Others(used, taken, first_of_others(foreign, interface))


def first_of_others(rules: Iterable[PolicyRule], interface: str) -> int:
    """Returns the lowest priority of a rule of others that may decide on packets from this interface."""
    deciding = [
        rule.priority
        for rule in rules
        if rule.interface in ("", interface) and not rule.is_local and not is_ours(rule, interface)
    ]
    return min(deciding, default=MAIN)


def is_good(priority: int, first: int) -> bool:
    """Tells whether rules of this priority come before all others, and have room before them."""
    return ROOM // 2 <= priority <= first - SPAN


def place(taken: Container[int], first: int) -> int:
    """Returns the priority of the first rule: before all others and with room before it, as far as there is."""
    preferred: tuple[int, ...] = (
        *range(ROOM, first - SPAN + 1),
        *range(min(ROOM - 1, first - SPAN), 0, -1),
        *range(1, MAIN - SPAN),
    )
    return next(each for each in preferred if not any(each + n in taken for n in range(SPAN)))


def choose(wanted: tuple[int | None, int | None], noted: Mark | None, used: Others) -> Mark:
    """Chooses what was configured (None: auto), else what is noted, else what is free.

    Raises HostError if another program uses what was configured, or nothing is free.
    """
    bit, priority = wanted
    if bit is None:
        free = (each for each in ((noted.bit,) if noted else ()) + CANDIDATES if each not in used.bits)
        bit = next(free, None)
        if bit is None:
            raise HostError("egress.mark is auto, and each bit of packet marks is used on this host; set it to one")
    elif bit in used.bits:
        raise HostError(f'egress.mark = "{bit:#x}": {used.bits[bit]} uses this bit; choose another, or "auto"')
    if priority is None:
        stays = noted is not None and is_good(noted.priority, used.first) and not _taken(noted.priority, used)
        priority = noted.priority if noted is not None and stays else place(used.priorities, used.first)
    elif taken := _taken(priority, used):
        raise HostError(
            f"egress.rule_priority = {priority}: {taken[0]} is in its place ({SPAN} are needed); choose another, "
            'or "auto"'
        )
    return Mark(bit, priority)


def _taken(priority: int, used: Others) -> list[str]:
    return [used.priorities[each] for each in range(priority, priority + SPAN) if each in used.priorities]


def bits(value: int, mask: int = WHOLE) -> int:
    """Returns the bits that a comparison or an assignment is about: of a whole mark, those that are set."""
    return value & WHOLE if mask & WHOLE == WHOLE else mask & WHOLE


def _in_nftables(listing: str, table: str | None) -> Iterator[tuple[str, int]]:
    try:
        entries = json.loads(listing)["nftables"]
    except (ValueError, LookupError, TypeError):
        return
    for rule in (entry["rule"] for entry in entries if "rule" in entry):
        if (rule["family"], rule["table"]) == ("inet", table):
            continue
        for expression in rule.get("expr", []):
            if _mentions_mark(expression):
                for number in _numbers(expression):
                    yield f"the nftables table {rule['family']} {rule['table']}", number


def _mentions_mark(part: object) -> bool:
    if isinstance(part, dict):
        return part.get("key") == "mark" or any(map(_mentions_mark, part.values()))
    return isinstance(part, list) and any(map(_mentions_mark, part))


def _numbers(part: object) -> Iterator[int]:
    """Returns the numbers of an expression; of those that keep all bits but some, those some."""
    if isinstance(part, dict):
        for value in part.values():
            yield from _numbers(value)
    elif isinstance(part, list):
        for value in part:
            yield from _numbers(value)
    elif isinstance(part, int) and not isinstance(part, bool):
        yield ~part & WHOLE if part.bit_count() > WHOLE.bit_count() // 2 else part & WHOLE


def _in_iptables(saved: str) -> Iterator[tuple[str, int]]:
    for value, mask in _OPTION.findall(saved):
        number = int(value, 0)
        if mask:
            number = bits(number, int(mask, 0))
        yield "a rule of iptables", ~number & WHOLE if number.bit_count() > WHOLE.bit_count() // 2 else number
