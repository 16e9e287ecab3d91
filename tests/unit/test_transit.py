"""What the table keeps from being forwarded past the tunnel, and whose rules rely on a router."""

from __future__ import annotations

import json

import pytest

from appliance.network.firewall.forwarding import IP_FORWARD, IPV6_ALL, IPV6_DEFAULT, HostForwarding, transit
from appliance.network.firewall.other_routing import relying
from appliance.network.firewall.rules import Transit

WAN, LAN = "net/ipv4/conf/wan/forwarding", "net/ipv4/conf/lan/forwarding"
OFF = {IP_FORWARD: "0", IPV6_ALL: "0", IPV6_DEFAULT: "0", WAN: "0", LAN: "0"}
SERVING = OFF | {WAN: "1", IPV6_ALL: "1"}
FOUND = {WAN: "0", IPV6_ALL: "0", IPV6_DEFAULT: "0"}
NOTHING_ELSE = Transit(frozenset({"wan"}), frozenset(), frozenset())


@pytest.mark.parametrize(
    ("values", "found", "expected"),
    [
        pytest.param(OFF, {}, NOTHING_ELSE, id="before anything is set"),
        pytest.param(SERVING, FOUND, NOTHING_ELSE, id="serving"),
        pytest.param(OFF | {WAN: "1"}, {}, Transit(frozenset(), frozenset()), id="the uplink was the operator's"),
        pytest.param(SERVING | {IP_FORWARD: "1"}, FOUND, Transit(frozenset(), frozenset()), id="a router by now"),
        pytest.param(SERVING | {IPV6_DEFAULT: "1"}, FOUND, Transit(frozenset({"wan"})), id="an IPv6 router by now"),
        pytest.param({**SERVING, IP_FORWARD: "1"}, {}, Transit(), id="a router before"),
        pytest.param(
            SERVING | {"net/ipv6/conf/lan/forwarding": "1", "net/ipv6/conf/wga0/forwarding": "1"},
            FOUND,
            Transit(frozenset({"wan"}), frozenset({"lan"})),
            id="an interface that another program has made a router's",
        ),
        pytest.param(
            SERVING | {'net/ipv6/conf/a"b/forwarding': "1", "net/ipv6/conf/eth*/forwarding": "1"},
            FOUND,
            NOTHING_ELSE,
            id="interfaces that nftables cannot name",
        ),
        pytest.param({}, {}, Transit(), id="nothing can be read"),
    ],
)
def test_what_is_kept_from_being_forwarded(values: dict[str, str], found: dict[str, str], expected: Transit) -> None:
    """What only the appliance's own sysctls would forward, and nothing that others have switched on."""
    host = HostForwarding(values, found, frozenset({"wan"}))
    assert transit(host, "wga0", frozenset(), ipv6=True) == expected


def test_without_ipv6_in_the_tunnel_ipv6_is_left_alone() -> None:
    """Without IPv6 in the tunnel only IPv4 is kept, and the bridges pass."""
    host = HostForwarding(OFF, {}, frozenset({"wan"}))
    assert transit(host, "wga0", frozenset({"br0"}), ipv6=False) == Transit(
        frozenset({"wan"}), None, frozenset({"br0"})
    )


def listing(family: str, table: str, chain: dict[str, object], *rules: list[object], **more: object) -> str:
    of = {"family": family, "table": table}
    entries: list[object] = [{"chain": {**of, **chain}}]
    entries += [{"rule": {**of, "chain": chain["name"], "expr": rule, **more}} for rule in rules]
    return json.dumps({"nftables": entries})


FORWARD: dict[str, object] = {"name": "forward", "type": "filter", "hook": "forward", "policy": "drop"}
NAT: dict[str, object] = {"name": "out", "type": "nat", "hook": "postrouting", "policy": "accept"}
ACCEPT: list[object] = [{"accept": None}]
ESTABLISHED: list[object] = [
    {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}},
    {"accept": None},
]


@pytest.mark.parametrize(
    ("ruleset", "expected"),
    [
        pytest.param('{"nftables": []}', None, id="no rules"),
        pytest.param(listing("ip", "containers", NAT, [{"masquerade": None}]), "table ip containers", id="masquerade"),
        pytest.param(
            listing("ip", "nat", NAT, [{"xt": {"type": "target", "name": "MASQUERADE"}}]), "table ip nat", id="iptables"
        ),
        pytest.param(listing("inet", "site", NAT, [{"dnat": {"addr": "10.0.0.1"}}]), "table inet site", id="dnat"),
        pytest.param(listing("ip6", "nat", NAT, [{"masquerade": None}]), None, id="IPv6 has a switch of its own"),
        pytest.param(listing("inet", "wg_appliance", NAT, [{"masquerade": None}]), None, id="ours"),
        pytest.param(listing("inet", "site", FORWARD), None, id="a filter that drops"),
        pytest.param(listing("inet", "site", FORWARD, ESTABLISHED), None, id="a filter that lets answers pass"),
        pytest.param(listing("inet", "site", FORWARD, ACCEPT), "table inet site", id="a filter that lets others pass"),
        pytest.param(listing("inet", "site", FORWARD, ACCEPT, comment="wg-appliance"), None, id="our rule in a filter"),
        pytest.param(
            listing("inet", "site", {**FORWARD, "hook": "input"}, ACCEPT), None, id="a filter of what is for the host"
        ),
    ],
)
def test_whose_rules_rely_on_a_router(ruleset: str, expected: str | None) -> None:
    """Those that translate others' traffic in IPv4, or let it pass for forwarding."""
    assert relying(ruleset) == expected


def test_a_chain_that_is_jumped_to_counts() -> None:
    """What a chain for forwarding jumps to is part of it."""
    first = json.loads(listing("ip", "filter", FORWARD, [{"jump": {"target": "site"}}]))
    second = json.loads(listing("ip", "filter", {"name": "site"}, ACCEPT))
    assert relying(json.dumps({"nftables": first["nftables"] + second["nftables"]})) == "table ip filter"
    assert relying(json.dumps(second)) is None
