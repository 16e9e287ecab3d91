"""Which bit and which priorities tell what the firewall let in, and what is sent to the kernel for it."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from typing import Any

import pytest

from appliance.domain.errors import HostError
from appliance.network.admission import policy_rules, tunnel_filter
from appliance.network.admission.mark import (
    CANDIDATES,
    MAIN,
    ROOM,
    Mark,
    Others,
    bits,
    choose,
    is_possible,
    others,
    place,
)
from appliance.network.admission.policy_rules import PolicyRule, changes, is_ours, wanted
from appliance.network.netlink import constants

FOUR, SIX = socket.AF_INET, socket.AF_INET6
LOCAL = PolicyRule(FOUR, 0, constants.FR_ACT_TO_TBL, table=constants.RT_TABLE_LOCAL)
WG_QUICK = PolicyRule(FOUR, 32765, constants.FR_ACT_TO_TBL, mark=0xCA6C, mask=0xFFFFFFFF, table=51820)
TAILSCALE = PolicyRule(FOUR, 5210, constants.FR_ACT_TO_TBL, mark=0x80000, mask=0xFF0000, table=254)
SECOND = wanted((FOUR, SIX), "wga1", 0x1000, ROOM)
NOTHING = Others({}, {})
AUTO = (None, None)


def used(*rules: PolicyRule, listing: str = "", saved: str = "") -> Others:
    return others(rules, listing, saved, "wga0", "wg_appliance")


def nft_rule(table: str, *expressions: Any) -> str:
    rule = {"rule": {"family": "inet", "table": table, "chain": "c", "expr": expressions}}
    return json.dumps({"nftables": [{"metainfo": {}}, rule]})


META_MARK = {"meta": {"key": "mark"}}
CT_MARK = {"ct": {"key": "mark"}}


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ({"match": {"op": "==", "left": META_MARK, "right": 0x1000}}, {0x1000}),
        ({"match": {"op": "==", "left": {"&": [META_MARK, 0xFF0000]}, "right": 0x40000}}, set(range(16, 24))),
        ({"mangle": {"key": META_MARK, "value": {"|": [META_MARK, 0x4000]}}}, {0x4000}),
        ({"mangle": {"key": META_MARK, "value": {"^": [{"&": [META_MARK, 0xFFFF7FFF]}, 0x8000]}}}, {0x8000}),
        ({"mangle": {"key": CT_MARK, "value": 0x3}}, {1, 2}),
        ({"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 4096}}, set()),
    ],
)
def test_a_bit_that_a_table_uses_is_anothers(expression: dict[str, Any], found: set[int]) -> None:
    """Marks of packets and connections, whole or masked, set or compared; what a mask keeps is not used by it."""
    expected = {1 << n for n in found} if found == set(range(16, 24)) else found
    assert set(used(listing=nft_rule("other", expression)).bits) == expected
    assert used(listing=nft_rule("wg_appliance", expression)).bits == {}


@pytest.mark.parametrize(
    ("saved", "found"),
    [
        ("-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000", 0x4000),
        ("-A PREROUTING -m mark --mark 0x80000/0xff0000 -j RETURN", 0xFF0000),
        ("-A OUTPUT -j MARK --set-mark 7", 7),
        ("-A OUTPUT -j CONNMARK --restore-mark --nfmask 0xff0000 --ctmask 0xff0000", 0xFF0000),
        ("-A FORWARD -j MARK --and-mark 0xffffefff", 0x1000),
        ("-A INPUT -p tcp --dport 80 -j ACCEPT", 0),
    ],
)
def test_a_bit_that_iptables_uses_is_anothers(saved: str, found: int) -> None:
    """As iptables-save prints them."""
    assert sum(used(saved=saved).bits) == found


def test_rules_of_a_whole_mark_use_its_bits() -> None:
    """A rule without a mask compares all bits, and means those that are set; with one, those of the mask."""
    assert sum(used(WG_QUICK).bits) == 0xCA6C
    assert sum(used(TAILSCALE).bits) == 0xFF0000
    assert bits(0, 0xFFFFFFFF) == 0


def test_a_free_bit_is_chosen_and_kept() -> None:
    """The first free one, then the same at each start, until another program uses it."""
    assert choose(AUTO, None, NOTHING).bit == CANDIDATES[0]
    assert choose(AUTO, None, used(*SECOND)).bit == CANDIDATES[1]
    noted = Mark(CANDIDATES[3], ROOM - 5)
    assert choose(AUTO, noted, NOTHING) == noted
    assert choose(AUTO, replace(noted, priority=7), NOTHING).priority == ROOM, "there is room again"
    assert choose(AUTO, noted, Others({noted.bit: "it"}, {})).bit == CANDIDATES[0]


@pytest.mark.parametrize("mark", [Mark(0, ROOM), Mark(3, ROOM), Mark(1 << 32, ROOM), Mark(1, 0), Mark(1, MAIN)])
def test_a_damaged_note_is_not_used(mark: Mark) -> None:
    """With no bit, or several, the table would mark nothing or too much; no rule has such a priority."""
    assert not is_possible(mark)
    assert is_possible(Mark(1 << 31, MAIN - 1))


def test_a_configured_value_that_is_anothers_is_refused() -> None:
    """In one line that names the key, the value and who has it."""
    with pytest.raises(HostError, match=r'^egress\.mark = "0x1000": the ip rule of priority \d+ uses this bit'):
        choose((0x1000, None), None, used(*SECOND))
    with pytest.raises(HostError, match=r"^egress\.rule_priority = 5208: an ip rule of priority 5210 is in its place"):
        choose((None, 5208), None, used(TAILSCALE))
    assert choose((0x40, 5207), None, used(TAILSCALE)) == Mark(0x40, 5207)
    with pytest.raises(HostError, match=r"^egress\.mark is auto, and each bit"):
        choose(AUTO, None, Others(dict.fromkeys((1 << n for n in range(32)), "it"), {}))


@pytest.mark.parametrize(
    ("taken", "first", "placed"),
    [
        ((), MAIN, ROOM),  # with room for rules that are added without a priority
        ((ROOM + 2,), MAIN, ROOM + 3),
        ((50,), 50, 47),
        ((4,), 4, 1),
        ((1, 2), 1, 3),  # nothing comes before them
    ],
)
def test_the_rules_come_before_all_others(taken: tuple[int, ...], first: int, placed: int) -> None:
    """Before every rule that may decide on a client's packets, as far as there is room."""
    assert place(taken, first) == placed


def test_what_is_for_another_interface_decides_nothing_here() -> None:
    """Another appliance's rules take priorities, and nothing else; the local table's come first in any case."""
    assert used(LOCAL, *SECOND).first == MAIN
    assert choose(AUTO, None, used(LOCAL, *SECOND)).priority == ROOM + 3
    assert used(LOCAL, TAILSCALE).first == TAILSCALE.priority


def test_nothing_is_prohibited_before_what_is_admitted_goes_on() -> None:
    """Rules are added so that the prohibiting one is the last of an IP version, and removed so that it is the first."""
    rules = wanted((FOUR, SIX), "wga0", 0x1000, 1)
    missing, excess = changes([LOCAL, *SECOND], rules, "wga0")
    assert (missing, excess) == (rules, [])
    assert [rule.action for rule in rules[:3]] == [
        constants.FR_ACT_NOP,
        constants.FR_ACT_GOTO,
        constants.FR_ACT_PROHIBIT,
    ]
    missing, excess = changes([LOCAL, *rules, *SECOND], (), "wga0")
    assert missing == []
    assert [rule.action for rule in excess[:2]] == [constants.FR_ACT_PROHIBIT] * 2
    assert len(excess) == len(rules)


def test_what_is_wrong_or_twice_is_changed_alone() -> None:
    """Another mark, another priority, one too many: that one goes, the right one comes."""
    rules = wanted((FOUR,), "wga0", 0x1000, 1)
    wrong = replace(rules[1], mark=0x2000, mask=0x2000)
    assert changes([rules[0], wrong, rules[2]], rules, "wga0") == ([rules[1]], [wrong])
    assert changes([*rules, rules[2]], rules, "wga0") == ([], [rules[2]])
    assert not is_ours(replace(WG_QUICK, interface="wga0"), "wga0")


@pytest.mark.parametrize("rule", wanted((FOUR, SIX), "wga0", 0x80000000, 100))
def test_a_rule_is_read_as_it_was_written(rule: PolicyRule) -> None:
    """What is sent to the kernel is what it lists; a listing that is cut short is none."""
    assert policy_rules.parse(policy_rules.encode(rule)) == rule
    assert policy_rules.parse(policy_rules.encode(rule)[:5]) is None


def test_the_filter_is_known_by_its_program() -> None:
    """It is in place if it stands first and has this mark's program."""
    body = tunnel_filter.encode(7, 0x1000)
    assert tunnel_filter.is_in_place(body, 0x1000)
    assert not tunnel_filter.is_in_place(body, 0x2000)
    assert not tunnel_filter.is_in_place(tunnel_filter.place(7), 0x1000)
    assert not tunnel_filter.is_in_place(b"", 0x1000)
