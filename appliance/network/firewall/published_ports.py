"""Finds the host's ports that other programs forward, to containers, other machines or other ports. Pure.

No socket of the host need have such a port, and yet what comes to it is a service's. Rules are understood that name
ports themselves, in `nft -j list ruleset` or, as nft does not know iptables' multiport and does not see
iptables-legacy, in what iptables-save prints; those that look ports up in a named set or map are not.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.firewall.settled_listeners import Port

PROTOCOLS = {"tcp": (6,), "udp": (17,), "th": (6, 17)}
FORWARDING = ("dnat", "redirect", "tproxy")
TARGETS = ("DNAT", "REDIRECT", "TPROXY")  # of iptables
_SAVED = re.compile(
    r"^-A \S+ (?:.* )?-p (tcp|udp) (?:.*[^!] )?--(?:dports?|destination-ports?) ([\d,:]+) "
    rf"(?:.* )?-j (?:{'|'.join(TARGETS)})\b",
    re.MULTILINE,
)


def published(listing: str) -> frozenset[Port]:
    """Returns (protocol, port) of each. Raises LookupError, TypeError or ValueError on a listing of unknown form."""
    rules = (entry["rule"]["expr"] for entry in json.loads(listing)["nftables"] if "rule" in entry)
    return frozenset(port for rule in rules if any(map(_forwards, rule)) for part in rule for port in _ports(part))


def published_by_iptables(saved: str) -> frozenset[Port]:
    """Returns (protocol, port) of each. `saved`: as iptables-save prints rules."""
    return frozenset(
        (number, port)
        for protocol, ports in _SAVED.findall(saved)
        for number in PROTOCOLS[protocol]
        for port in _saved_ports(ports)
    )


def _saved_ports(ports: str) -> Iterator[int]:
    for part in ports.split(","):
        first, _, last = part.partition(":")
        yield from range(int(first or 0), int(last or first) + 1)


def _forwards(part: dict[str, Any]) -> bool:
    target = part.get("xt")
    return not part.keys().isdisjoint(FORWARDING) or (isinstance(target, dict) and target.get("name") in TARGETS)


def _ports(part: dict[str, Any]) -> Iterator[Port]:
    match part:
        case {
            "match": {"op": "==" | "in", "left": {"payload": {"protocol": protocol, "field": "dport"}}, "right": ports}
        }:
            yield from ((number, port) for port in _each(ports) for number in PROTOCOLS.get(protocol, ()))
        case {"dnat": {"addr": {"map": {"key": {"payload": {"protocol": protocol, "field": "dport"}}, "data": data}}}}:
            listed = data["set"] if isinstance(data, dict) else []
            yield from (
                (number, port) for key, _ in listed for port in _each(key) for number in PROTOCOLS.get(protocol, ())
            )


def _each(value: Any) -> Iterator[int]:
    match value:
        case int():
            yield value
        case {"set": [*members]}:
            for member in members:
                yield from _each(member)
        case {"range": [int(first), int(last)]}:
            yield from range(first, last + 1)
        case {"elem": {"val": inner}}:
            yield from _each(inner)
