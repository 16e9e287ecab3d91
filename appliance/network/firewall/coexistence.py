"""Lets clients' traffic through other packet filters: Docker's, ufw's, firewalld's, the operator's own. Pure.

A packet traverses every base chain of a hook, and any of them may drop it, even if the appliance's table accepts it.
So the appliance inserts rules for clients' packets at the head of each chain that drops by default. A comment marks
these rules, by which they are found and removed; all other rules stay unchanged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Literal

from appliance.network.firewall import nft_json
from appliance.network.firewall.simulator import Packet, refusing
from appliance.network.firewall.table_choice import is_an_appliances

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from ipaddress import IPv4Network, IPv6Network

    from appliance.network.firewall.simulator import Chain, Table

    Address = IPv4Address | IPv6Address

COMMENT = "wg-appliance"
DOCKER_USER = "DOCKER-USER"  # Docker's chain for user rules, which it calls first and never changes

# Public addresses for simulated packets; nothing is sent there.
SOMEWHERE = {4: ip_address("1.1.1.1"), 6: ip_address("2606:4700:4700::1111")}
ANY_PORT, WEB_PORT = 54321, 443
PROTOCOLS: tuple[Literal["tcp"], Literal["udp"]] = ("tcp", "udp")


@dataclass(frozen=True, slots=True)
class ExitTraffic:
    """Describes the traffic that other filters must let through.

    `uplinks`: the interface of the default route, by IP version.
    """

    interface: str
    listen_port: int
    subnets: tuple[IPv4Network | IPv6Network, ...]
    uplinks: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class InsertionPoint:
    """Pairs a chain with the appliance's rules to insert at its head."""

    table: Table
    chain: str
    rules: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.table.family} {self.table.name} {self.chain}"


def has_flow_table(listing: str, interfaces: Collection[str]) -> bool:
    """Tells whether packets of known flows that come in by one of the interfaces may pass the host without meeting a
    chain. `listing`: output of `nft -j list ruleset`."""
    tables = (entry["flowtable"] for entry in json.loads(listing)["nftables"] if "flowtable" in entry)
    devices = (table.get("dev", ()) for table in tables)  # one is listed by its name, several as a list
    return any(not {*([each] if isinstance(each, str) else each)}.isdisjoint(interfaces) for each in devices)


def missing(listing: str, traffic: ExitTraffic) -> list[InsertionPoint]:
    """Finds chains that lack the appliance's rules and need them. `listing`: output of `nft -j list ruleset`."""
    # Another appliance's table drops what concerns its own tunnel, and nothing else.
    tables = [table for table in nft_json.parse(listing) if not is_an_appliances(table.family, table.name)]
    # Use only rules that iptables-nft can read: it refuses to work on a table with any other.
    forward = tuple(f'{end} "{traffic.interface}" counter accept' for end in ("iifname", "oifname"))
    port = (f"udp dport {traffic.listen_port} counter accept",)
    needed = [
        *(
            InsertionPoint(table, _head(table, chain), forward)
            for table, chain in _each_once(tables, "forward", forwarded(traffic))
        ),
        *(InsertionPoint(table, chain.name, port) for table, chain in _each_once(tables, "input", handshakes(traffic))),
    ]
    present = {rule.chain for rule in _marked_rules(listing) if rule.matches & {traffic.interface, traffic.listen_port}}
    return [point for point in needed if str(point) not in present]


def insert(points: Iterable[InsertionPoint]) -> str:
    return "".join(f'insert rule {point} {rule} comment "{COMMENT}"\n' for point in points for rule in point.rules)


def delete(listing: str, table: str, interface: str, listen_port: int) -> str:
    """Removes all rules that `insert` added. `table`: this appliance's, which may be gone already.

    Beside another appliance only those about this interface and port, as the comment is the same.
    """
    every = [(each.family, each.name) for each in nft_json.parse(listing)]
    alone = not any(is_an_appliances(family, name) and name != table for family, name in every)
    ours = (rule for rule in _marked_rules(listing) if alone or rule.matches & {interface, listen_port})
    return "".join(f"delete rule {rule.chain} handle {rule.handle}\n" for rule in ours)


@dataclass(frozen=True, slots=True)
class _MarkedRule:
    """Names a rule of the appliance in another program's table. `matches`: the interface or port that it matches."""

    chain: str
    handle: int
    matches: frozenset[object]


def _marked_rules(listing: str) -> Iterator[_MarkedRule]:
    for entry in json.loads(listing)["nftables"]:
        rule = entry.get("rule")
        if rule is not None and rule.get("comment") == COMMENT:
            rights = (part["match"]["right"] for part in rule["expr"] if "match" in part)
            matches = frozenset(right for right in rights if isinstance(right, str | int))
            yield _MarkedRule(f"{rule['family']} {rule['table']} {rule['chain']}", rule["handle"], matches)


def forwarded(traffic: ExitTraffic) -> Iterator[Packet]:
    """Returns a client's first packet and its reply, for each IP version that has an uplink."""
    for subnet in traffic.subnets:
        uplink = traffic.uplinks.get(subnet.version)
        if uplink is None:
            continue
        client, there = subnet[2], SOMEWHERE[subnet.version]
        for protocol in PROTOCOLS:
            yield Packet(traffic.interface, uplink, client, there, protocol, ANY_PORT, WEB_PORT, "new")
            yield Packet(uplink, traffic.interface, there, client, protocol, WEB_PORT, ANY_PORT, "established")


def handshakes(traffic: ExitTraffic) -> Iterator[Packet]:
    """Returns a client's first packet to the port. Its destination address does not matter."""
    for version, uplink in traffic.uplinks.items():
        there = SOMEWHERE[version]
        yield Packet(uplink, None, there, there, "udp", ANY_PORT, traffic.listen_port, "new")


def _each_once(tables: list[Table], hook: str, packets: Iterator[Packet]) -> Iterator[tuple[Table, Chain]]:
    refused = [(table, chain) for packet in packets for table, chain in refusing(tables, hook, packet)]
    seen: list[tuple[Table, Chain]] = []
    for each in refused:
        if not any(each[0] is table and each[1] is chain for table, chain in seen):
            seen.append(each)
    yield from seen


def _head(table: Table, chain: Chain) -> str:
    return DOCKER_USER if DOCKER_USER in table.chains else chain.name
