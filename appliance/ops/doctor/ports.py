"""Checks the host ports that clients' packets leave with: whether there are enough. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from appliance.network.firewall.port_ranges import ENOUGH_PORTS, borders, choose
from appliance.network.firewall.rules import PortRange
from appliance.ops.doctor.finding import Finding, ok, warning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from appliance.ops.doctor.facts import Facts, PortFacts

NUMBERS = {"tcp": 6, "udp": 17}
# What nft prints where the host has no /etc/protocols.
PRINTED: Mapping[object, object] = {number: name for name, number in NUMBERS.items()}
NEARLY_ALL = 0.8


def ports(facts: Facts) -> Finding:
    """Checks the ranges that the table has; those that a start would choose where there is none."""
    found = facts.network.ports
    if found is None:
        return warning("ports", "the ports on which this host listens cannot be read", "modprobe -a tcp_diag udp_diag")
    used = used_ranges(facts.firewall.ruleset, facts.firewall.table)
    ranges = {name: used.get(name) or free_range(found, number) for name, number in NUMBERS.items()}
    for name, chosen in ranges.items():
        if narrow := _narrow(found, name, chosen):
            return narrow
    for name, chosen in ranges.items():
        most = found.most_flows.get(NUMBERS[name], 0)
        if chosen is not None and most >= NEARLY_ALL * chosen.width:
            what = f"{most} of {chosen.width} {name.upper()} flows that fit to one address and port are there"
            return warning("ports", what, "wg-appliance session list: end or limit the session that opens them")
    shown = ", ".join(f"{name.upper()} {chosen}" for name, chosen in ranges.items())
    udp = ranges["udp"]
    return ok("ports", f"{shown}: {0 if udp is None else udp.width} flows of all clients to one resolver fit")


def free_range(found: PortFacts, protocol: int) -> PortRange | None:
    """Returns the range that a start would choose now."""
    return choose({port for of, port in found.taken if of == protocol})


def used_ranges(ruleset: str | None, table: str) -> Mapping[str, PortRange]:
    """Returns the ranges of the appliance's table by protocol; what it does not have is missing."""
    entries = json.loads(ruleset)["nftables"] if ruleset is not None else []
    rules = (entry["rule"] for entry in entries if "rule" in entry)
    own = (rule["expr"] for rule in rules if (rule.get("family"), rule.get("table")) == ("inet", table))
    return dict(each for parts in own for each in _translated(parts))


def _translated(parts: list[dict[str, Any]]) -> Iterator[tuple[str, PortRange]]:
    protocol: object = None
    for part in parts:
        match part:
            case {"match": {"left": {"meta": {"key": "l4proto"}}, "right": str(name) | int(name)}}:
                protocol = PRINTED.get(name, name)
            case {"snat": {"port": given}} | {"masquerade": {"port": given}} if protocol is not None:
                first, last = given["range"] if isinstance(given, dict) else (given, given)
                yield str(protocol), PortRange(first, last)


def _narrow(found: PortFacts, name: str, chosen: PortRange | None) -> Finding | None:
    mend = f"ss -ln{name[0]}p; let what listens there use ports below 1024, or ports side by side"
    if chosen is None:
        return warning("ports", f"the host uses every {name.upper()} port: clients' {name.upper()} is dropped", mend)
    if chosen.width >= ENOUGH_PORTS:
        return None
    between = " and ".join(_named(found, name, port) for port in borders(chosen))
    what = f"clients share {chosen.width} {name.upper()} ports, {chosen}, as this host uses {between}"
    return warning("ports", what, mend)


def _named(found: PortFacts, name: str, port: int) -> str:
    holders = found.holders.get((NUMBERS[name], port), ())
    return f"{port} ({', '.join(holders)})" if holders else str(port)
