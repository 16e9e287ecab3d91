"""Tells whether another program's rules rely on this host being an IPv4 router. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from appliance.network.firewall.coexistence import COMMENT
from appliance.network.firewall.table_choice import FIRST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FAMILIES = ("ip", "inet")
TRANSLATIONS = ("masquerade", "snat", "dnat")
# A filter accepts these however little it lets through.
UNTELLING = ("icmp", "icmpv6", "established")

Chain = tuple[str, str, str]  # family, table, name


def relying(listing: str) -> str | None:
    """Returns the name of a table that translates other traffic than the appliance's, or accepts it for forwarding.

    `listing`: output of `nft -j list ruleset`. None: there is none.
    """
    entries = json.loads(listing)["nftables"]
    rules = [entry["rule"] for entry in entries if "rule" in entry and _is_others(entry["rule"])]
    forward = _reached(
        {_chain(entry["chain"], "name") for entry in entries if entry.get("chain", {}).get("hook") == "forward"}, rules
    )
    for rule in rules:
        if _translates(rule["expr"]) or (_chain(rule, "chain") in forward and _accepts(rule["expr"])):
            return f"table {rule['family']} {rule['table']}"
    return None


def _is_others(rule: Mapping[str, Any]) -> bool:
    return rule["family"] in FAMILIES and not rule["table"].startswith(FIRST) and rule.get("comment") != COMMENT


def _chain(entry: Mapping[str, Any], name: str) -> Chain:
    return entry["family"], entry["table"], entry[name]


def _reached(chains: set[Chain], rules: Sequence[Mapping[str, Any]]) -> set[Chain]:
    """Adds the chains to which these jump."""
    while True:
        further = {
            (rule["family"], rule["table"], target)
            for rule in rules
            if _chain(rule, "chain") in chains
            for target in _targets(rule["expr"])
        }
        if further <= chains:
            return chains
        chains |= further


def _targets(expressions: Sequence[Any]) -> Iterator[str]:
    for content in _contents(expressions):
        for verdict in ("jump", "goto"):
            if isinstance(content.get(verdict), dict):
                yield content[verdict]["target"]


def _translates(expressions: Sequence[Any]) -> bool:
    return any(
        translation in content or content.get("xt", {}).get("name") == translation.upper()
        for content in _contents(expressions)
        for translation in TRANSLATIONS
    )


def _accepts(expressions: Sequence[Any]) -> bool:
    return any("accept" in content for content in _contents(expressions)) and not any(
        word in json.dumps(expressions) for word in UNTELLING
    )


def _contents(value: object) -> Iterator[Mapping[str, Any]]:
    """Returns each object within a rule: a verdict may stand in a map."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from _contents(each)
    elif isinstance(value, list):
        for each in value:
            yield from _contents(each)
