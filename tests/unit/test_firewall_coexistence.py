"""Where other firewalls get rules of ours, and how these are found again."""

from __future__ import annotations

import json
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from appliance.network.firewall.coexistence import ExitTraffic, delete, has_flow_table, insert, missing

WAY = ExitTraffic(
    interface="wga0",
    listen_port=51820,
    subnets=(IPv4Network("10.101.0.0/24"), IPv6Network("fd65:7869:7400::/112")),
    uplinks={4: "eth0", 6: "eth0"},
)
FORWARD = (
    'insert rule {0} iifname "wga0" counter accept comment "wg-appliance"\n'
    'insert rule {0} oifname "wga0" counter accept comment "wg-appliance"\n'
)
PORT = 'insert rule {0} udp dport 51820 counter accept comment "wg-appliance"\n'


def chain(family: str, table: str, name: str, hook: str | None = None, policy: str = "accept") -> dict[str, Any]:
    base = {} if hook is None else {"type": "filter", "hook": hook, "prio": 0, "policy": policy}
    return {"chain": {"family": family, "table": table, "name": name, "handle": 1} | base}


def rule(family: str, table: str, name: str, *expr: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"rule": {"family": family, "table": table, "chain": name, "handle": 7, "expr": list(expr)} | more}


def listing(*entries: dict[str, Any]) -> str:
    owners = {(body["family"], body["table"]) for entry in entries for body in entry.values()}
    tables = [{"table": {"family": family, "name": name}} for family, name in sorted(owners)]
    return json.dumps({"nftables": [*tables, *entries]})


def interface(key: str, name: str) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": name}}


DROPS = chain("inet", "site", "forward", "forward", "drop")
JUMP = {"jump": {"target": "DOCKER-USER"}}
DOCKER = (
    chain("ip", "filter", "FORWARD", "forward", "drop"),
    chain("ip", "filter", "DOCKER-USER"),
    rule("ip", "filter", "FORWARD", JUMP),
)
OURS = rule("inet", "site", "forward", interface("iifname", "wga0"), {"accept": None}, comment="wg-appliance")
NOT_UNDERSTOOD = {"xt": None}
# Named objects; and forms that no version of nft prints yet.
UNKNOWN: tuple[tuple[Any, ...], ...] = (
    ({"limit": "slow"}, {"drop": None}),
    ({"quota": "much"}, {"drop": None}),
    ({"ct count": "many"}, {"drop": None}),
    ({"vmap": {"key": {"meta": {"key": "iifname"}}, "data": 5}},),
    ({"vmap": {"key": {"meta": {"key": "iifname"}}, "data": {"set": [["wga0"]]}}},),
    ({"match": {"op": "==", "left": {"a": 1, "b": 2}, "right": 5}}, {"accept": None}),
    ({"jump": "elsewhere"},),
    ("accept",),
)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param([], "", id="nothing there"),
        pytest.param([DROPS], FORWARD.format("inet site forward"), id="drops what is forwarded"),
        pytest.param([chain("inet", "site", "forward", "forward")], "", id="accepts what is forwarded"),
        pytest.param(
            [chain("ip6", "filter", "INPUT", "input", "drop")], PORT.format("ip6 filter INPUT"), id="drops the port"
        ),
        pytest.param(DOCKER, FORWARD.format("ip filter DOCKER-USER"), id="Docker's chain for others"),
        pytest.param(
            [DROPS, *(rule("inet", "site", "forward", *each) for each in UNKNOWN)],
            FORWARD.format("inet site forward"),
            id="drops by default, whatever rules in a syntax of their own do",
        ),
        pytest.param(
            [DROPS, rule("inet", "site", "forward", interface("iifname", {"set": ["wga0"]}), comment="wg-appliance")],
            FORWARD.format("inet site forward"),
            id="another's rule with our comment",
        ),
        pytest.param(
            [DROPS, rule("inet", "site", "forward", NOT_UNDERSTOOD, {"accept": None})],
            FORWARD.format("inet site forward"),
            id="drops by default, whatever a rule that is not understood accepts",
        ),
        pytest.param(
            [
                chain("inet", "site", "forward", "forward"),
                rule("inet", "site", "forward", NOT_UNDERSTOOD, {"drop": None}),
            ],
            "",
            id="accepts by default, whatever such a rule drops",
        ),
        pytest.param(
            [
                DROPS,
                rule("inet", "site", "forward", interface("iifname", "wga0"), {"accept": None}),
                rule("inet", "site", "forward", interface("oifname", "wga0"), {"accept": None}),
            ],
            "",
            id="the operator's own rules let clients through",
        ),
        pytest.param([DROPS, OURS], "", id="ours stand"),
        pytest.param([chain("inet", "wg_appliance", "forward", "forward", "drop")], "", id="our own table"),
        pytest.param(
            [chain("inet", "wg_appliance_wgb0", "forward", "forward", "drop")], "", id="another appliance's table"
        ),
        pytest.param([chain("bridge", "site", "forward", "forward", "drop")], "", id="of another family"),
    ],
)
def test_a_rule_is_missing_where_a_chain_drops_by_default(entries: list[dict[str, Any]], expected: str) -> None:
    """Rules about clients' packets alone, where a chain drops by default and nobody has seen to it."""
    assert insert(missing(listing(*entries), WAY)) == expected


def test_rules_of_an_earlier_interface_do_not_count() -> None:
    """Rules of ours that are about an interface of before do not count."""
    renamed = ExitTraffic("wgb0", WAY.listen_port, WAY.subnets, WAY.uplinks)
    assert [str(place) for place in missing(listing(DROPS, OURS), renamed)] == ["inet site forward"]


def test_no_rule_is_called_for_without_a_default_route() -> None:
    """Where there is no default route nothing is forwarded, and nothing called for."""
    assert missing(listing(DROPS), ExitTraffic("wga0", 51820, WAY.subnets, {})) == []


def test_only_rules_with_our_comment_are_deleted() -> None:
    """What carries our comment goes, by its handle, and nothing else."""
    others = rule("inet", "site", "forward", interface("iifname", "wga0"), {"accept": None}, comment="mine")
    gone = "delete rule inet site forward handle 7\n"
    assert delete(listing(DROPS, OURS, others), "wg_appliance", "wga0", 51820) == gone


def test_rules_of_another_appliance_stay() -> None:
    """Beside another appliance, only what is about our own interface or port goes; alone, also what is about others."""
    theirs = rule("inet", "site", "forward", interface("iifname", "wgb0"), {"accept": None}, comment="wg-appliance")
    theirs["rule"]["handle"] = 8
    own, other = "delete rule inet site forward handle 7\n", "delete rule inet site forward handle 8\n"
    table = chain("inet", "wg_appliance_wgb0", "forward", "forward")
    assert delete(listing(table, DROPS, OURS, theirs), "wg_appliance", "wga0", 51820) == own
    assert delete(listing(table, DROPS, OURS, theirs), "wg_appliance_wgb0", "wgb0", 51821) == own + other
    assert delete(listing(DROPS, OURS, theirs), "wg_appliance", "wga0", 51820) == own + other


@pytest.mark.parametrize(
    ("devices", "passed_by"),
    [
        pytest.param('"wan"', True, id="an uplink"),
        pytest.param('["lan1", "wan"]', True, id="an uplink among others"),
        pytest.param('["lan1", "lan2"]', False, id="others alone"),
        pytest.param('"wan1"', False, id="another of like name"),
    ],
)
def test_a_flow_table_counts_on_an_uplink_alone(devices: str, passed_by: bool) -> None:
    """Answers to clients come in by an uplink: a flow table between other networks carries none of them."""
    table = f'{{"flowtable": {{"family": "inet", "table": "fast", "name": "f", "hook": "ingress", "dev": {devices}}}}}'
    assert has_flow_table(f'{{"nftables": [{{"metainfo": {{}}}}, {table}]}}', {"wan"}) is passed_by
    assert not has_flow_table('{"nftables": []}', {"wan"})
