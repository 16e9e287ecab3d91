"""Renders the chains that mark what the table lets in. Pure.

Routing and the tunnel's egress admit marked packets only (network/admission), so that nothing passes while the table
is missing. Here each packet is decided on before it is routed, after all translation of its destination: one chain of
the table that is flushed opens nothing either. Blocked networks stand in the rules, not in sets, for the same reason.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import TYPE_CHECKING

from appliance.network.firewall.chains.destinations import (
    FAMILIES,
    NAMES,
    PRIVATE,
    PROHIBITED,
    RESET,
    SMTP_PORTS,
    networks_by_set,
    ports,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from appliance.network.firewall.rules import Address, EgressRules, Network

# After other programs' chains, which may set whole marks from a connection's (mangle, -150; dstnat, -100).
LAST = 300

UNUSED = {"ip": "192.0.0.8/32", "ip6": "100::/128"}


def chain(rules: EgressRules) -> Iterator[str]:
    if rules.marking is None:
        return
    into, outof = f'oifname "{rules.tunnel.interface}"', f'iifname "{rules.tunnel.interface}"'
    mark = f"meta mark set meta mark or {rules.marking.bit:#x}"
    # The mark has done its work once the packet is routed; the host's other rules are not to see it.
    unmark = f"meta mark set meta mark and {~rules.marking.bit & 0xFFFFFFFF:#x}"
    for (family, subnet), (_, version) in zip(rules.tunnel.by_family, FAMILIES, strict=True):
        yield f"  chain admission_{family} {{"
        if subnet is not None:
            yield from (f"    {line}" for line in _decisions(rules, version, subnet, mark))
        yield "  }"
    yield "  chain admission {"
    yield f"    type filter hook prerouting priority {LAST}; policy accept;"
    yield from _answers(rules, mark)
    # One comparison for all that is not from the tunnel: what the internet answers, and the host's other traffic.
    yield f'    iifname != "{rules.tunnel.interface}" accept'
    yield from (f"    meta nfproto ipv{version} goto admission_{family}" for family, version in FAMILIES)
    yield "  }"
    yield "  chain admitted_here {"
    yield "    type filter hook input priority filter + 10; policy accept;"
    yield f"    {outof} {unmark}"
    yield "  }"
    yield "  chain admitted_through {"
    yield "    type filter hook forward priority filter + 10; policy accept;"
    yield f"    {outof} {unmark}"
    yield f'    iifname != "{rules.tunnel.interface}" {into} ct state new {PROHIBITED}'
    yield "  }"
    yield "  chain into_tunnel {"
    # The last hook before the egress filter: other programs' chains there may set whole marks too (a QoS script's).
    yield f"    type filter hook postrouting priority {LAST}; policy accept;"
    yield f"    {into} {mark}"
    yield "  }"


def _answers(rules: EgressRules, mark: str) -> Iterator[str]:
    """Marks answers to clients where the kernel looks up their way back, which is from the tunnel."""
    if rules.routing.filtered:
        names = ", ".join(f'"{name}"' for name in sorted(rules.routing.filtered))
        yield f"    iifname {{ {names} }} ip daddr {rules.tunnel.subnet} {mark} accept"


def _decisions(rules: EgressRules, version: int, subnet: Network, mark: str) -> Iterator[str]:
    """Rejects what `from_clients` rejects, by the destination alone: the outgoing interface is not known yet."""
    family, blocked = NAMES[version], networks_by_set(rules.blocks)
    # The source, which the chain `sources` has checked, is looked up for its own sake. Where a table is replaced, sets
    # come into force after the rules (net/netfilter/nf_tables_api.c, nf_tables_commit, nft_set_commit_update), in the
    # order in which they are written. Until this last one has, nothing is found in it, so nothing is marked. A set of
    # one element would not do: nft makes a comparison of it.
    admit = f"{family} saddr {{ {subnet}, {UNUSED[family]} }}"
    if extra := _listed(blocked["extra"], version):
        yield f"{family} daddr {extra} {PROHIBITED}"
    if rules.blocks.smtp:
        yield f"tcp dport {{ {ports(SMTP_PORTS)} }} {RESET}"
    if rules.blocks.other_clients:
        yield f"{family} daddr {subnet} {family} daddr != {subnet[1]} {PROHIBITED}"
    yield from (f"{admit} {allowed} {mark} accept" for allowed in _allowances(rules, version))
    if private := _listed(blocked["private"], version):
        yield f"{family} daddr != {subnet} {family} daddr {private} {PROHIBITED}"
    yield f"{admit} {mark}"


def _allowances(rules: EgressRules, version: int) -> Iterator[str]:
    """Yields matches of what passes although its destination is private, as the chains `private` and `host` have it:
    what the operator allows, also where the host has translated it, and open services at private addresses.

    By named sets: while one is empty, less passes, not more.
    """
    if not rules.blocks.private:
        return
    transport, family, places = "meta l4proto { tcp, udp }", NAMES[version], f"@allowed_ports{version}"
    yield f"{family} daddr @allowed{version}"
    yield f"{transport} {family} daddr . th dport {places}"
    yield f"ct status dnat {transport} ct original {family} daddr . ct original proto-dst {places}"
    for service in rules.services.open:
        public_ip = rules.services.public_ip
        address = public_ip if service.everywhere else service.address
        if service.address.version != version or address is None or address.version != version:
            continue
        if not _is_private(address):
            continue
        translated = "" if address == public_ip else " ct status dnat"
        yield f"{family} daddr {address}{translated} tcp dport {service.port}"


def _is_private(address: Address) -> bool:
    return any(address in network for network in PRIVATE)


def _listed(networks: Sequence[Network], version: int) -> str:
    """Returns the networks of one IP version as an anonymous set, in which none may overlap another."""
    four = [n for n in networks if isinstance(n, IPv4Network)]
    six = [n for n in networks if isinstance(n, IPv6Network)]
    members = ", ".join(map(str, collapse_addresses(four) if version == 4 else collapse_addresses(six)))
    return f"{{ {members} }}" if members else ""
