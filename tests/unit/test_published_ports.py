"""Which ports other programs forward, as `nft -j` lists their rules."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.network.firewall.published_ports import published, published_by_iptables


def dport(protocol: str, right: object, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": "dport"}}, "right": right}}


COUNTER = {"counter": {"packets": 0, "bytes": 0}}
DNAT, REDIRECT = {"dnat": {"family": "ip", "addr": "10.0.0.2", "port": 80}}, {"redirect": {"port": 5353}}
OF_IPTABLES = {"xt": {"type": "target", "name": "DNAT"}}


def by_map(data: object) -> dict[str, Any]:
    key = {"payload": {"protocol": "tcp", "field": "dport"}}
    return {"dnat": {"family": "ip", "addr": {"map": {"key": key, "data": data}}}}


@pytest.mark.parametrize(
    ("rule", "ports"),
    [
        pytest.param([dport("tcp", 8080), COUNTER, OF_IPTABLES], {(6, 8080)}, id="Docker's"),
        pytest.param(
            [dport("udp", {"range": [5000, 5002]}), DNAT], {(17, p) for p in (5000, 5001, 5002)}, id="a range"
        ),
        pytest.param([dport("tcp", {"set": [81, {"range": [90, 91]}]}), DNAT], {(6, 81), (6, 90), (6, 91)}, id="a set"),
        pytest.param([dport("th", 53), REDIRECT], {(6, 53), (17, 53)}, id="of both protocols"),
        pytest.param([by_map({"set": [[83, "10.0.0.1"], [84, "10.0.0.3"]]})], {(6, 83), (6, 84)}, id="a map"),
        pytest.param([dport("tcp", 85), {"tproxy": {"family": "ip", "port": 3128}}], {(6, 85)}, id="a proxy"),
        pytest.param([by_map("@ports")], set(), id="a named map"),
        pytest.param([dport("udp", "@ports"), DNAT], set(), id="a named set"),
        pytest.param([dport("udp", 77, "!="), DNAT], set(), id="all but one"),
        pytest.param([dport("tcp", 22), {"accept": None}], set(), id="no translation"),
        pytest.param([dport("tcp", 22), {"xt": None}], set(), id="what nft does not name"),
        pytest.param([dport("tcp", 22), {"xt": {"type": "target", "name": "LOG"}}], set(), id="another target"),
        pytest.param([dport("dccp", 22), DNAT], set(), id="another protocol"),
    ],
)
def test_ports_of_rules_that_forward(rule: list[dict[str, Any]], ports: set[tuple[int, int]]) -> None:
    """Those that the rule names, by whichever program it was made."""
    listing = {"nftables": [{"metainfo": {}}, {"table": {"name": "nat"}}, {"rule": {"expr": rule}}]}
    assert published(json.dumps(listing)) == ports


@pytest.mark.parametrize(
    ("rule", "ports"),
    [
        pytest.param(
            "PREROUTING -p tcp -m multiport --dports 81,90:91 -j DNAT", {(6, 81), (6, 90), (6, 91)}, id="many"
        ),
        pytest.param("DOCKER ! -i docker0 -p udp -m udp --dport 53 -j DNAT --to 10.0.0.2", {(17, 53)}, id="Docker's"),
        pytest.param(
            "PREROUTING -d 1.2.3.4/32 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 3128", {(6, 80)}, id="to"
        ),
        pytest.param(
            "PREROUTING -p tcp -m multiport ! --dports 22,80 -j DNAT --to-destination 10.0.0.2", set(), id="!"
        ),
        pytest.param("INPUT -p tcp -m tcp --dport 22 -j ACCEPT", set(), id="no translation"),
        pytest.param("POSTROUTING -p tcp -m tcp --sport 22 -j DNAT", set(), id="no destination"),
    ],
)
def test_ports_that_iptables_forwards(rule: str, ports: set[tuple[int, int]]) -> None:
    """As iptables-save prints them, also those that nft does not show."""
    assert published_by_iptables(f"*nat\n:PREROUTING ACCEPT [0:0]\n-A {rule}\nCOMMIT\n") == ports
