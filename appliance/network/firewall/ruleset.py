"""Renders the exit's nftables table as text for `nft -f`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Network = IPv4Network | IPv6Network

TABLE = "wg_appliance"

SMTP_PORTS = (25, 465, 587, 2525)
FAMILIES = (("ip", 4), ("ip6", 6))
PROHIBITED = "reject with icmpx admin-prohibited"

# Private use (RFC 1918, RFC 4193), CGNAT (RFC 6598), link-local with cloud metadata services, loopback, "this network",
# multicast, reserved and broadcast. Documentation ranges are left alone.
PRIVATE: tuple[Network, ...] = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("10.0.0.0/8"),
    IPv4Network("100.64.0.0/10"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("224.0.0.0/4"),
    IPv4Network("240.0.0.0/4"),
    IPv6Network("::/127"),
    IPv6Network("fc00::/7"),
    IPv6Network("fe80::/10"),
    IPv6Network("ff00::/8"),
)

# An IPv4 address in its last 32 bits, translated further on: RFC 6052's prefix, and the first of those that RFC 8215
# leaves to operators.
NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/96"))


@dataclass(frozen=True, slots=True)
class EgressRules:
    """Describes what clients may reach, and which address their traffic leaves from.

    `source`: that address; None takes the outgoing interface's (masquerade). `own_ports`: the TCP ports on which the
    appliance itself listens on all addresses, so on the tunnel's too.
    """

    interface: str
    subnet: IPv4Network
    subnet6: IPv6Network | None
    source: IPv4Address | IPv6Address | None
    block_smtp: bool
    block_private: bool
    isolate_clients: bool
    extra_block: Sequence[Network]
    own_ports: Sequence[int] = ()


def render(rules: EgressRules) -> str:
    """Renders the whole table: declares, deletes and creates it in one transaction, so that it is replaced at once."""
    body = [*_sets(rules), *_sources(rules), *_forward(rules), *_local(rules), *_nat(rules)]
    return "\n".join([remove(), f"table inet {TABLE} {{", *body, "}", ""])


def remove() -> str:
    """Renders the table's removal. nft fails to delete a missing table, so declares it first."""
    return f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\n"


def _sets(rules: EgressRules) -> Iterable[str]:
    blocked = {"private": PRIVATE if rules.block_private else (), "extra": rules.extra_block}
    for name, listed in blocked.items():
        behind = (_behind(prefix, n) for n in listed if isinstance(n, IPv4Network) for prefix in NAT64)
        networks = [*listed, *behind]
        for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
            members = ", ".join(str(n) for n in networks if n.version == version)
            elements = f" elements = {{ {members} }};" if members else ""
            # auto-merge: the operator's networks may overlap each other.
            yield f"  set {name}{version} {{ type {kind}; flags interval; auto-merge;{elements} }}"


def _behind(prefix: IPv6Network, network: IPv4Network) -> IPv6Network:
    return IPv6Network(
        (int(prefix.network_address) + int(network.network_address), prefix.prefixlen + network.prefixlen)
    )


def _sources(rules: EgressRules) -> Iterable[str]:
    """Drops spoofed sources before conntrack: only clients' addresses may come from the tunnel, and only from there."""
    tunnel = f'"{rules.interface}"'
    yield "  chain sources {"
    yield "    type filter hook prerouting priority raw; policy accept;"
    for family, subnet in (("ip", rules.subnet), ("ip6", rules.subnet6)):
        if subnet is None:
            yield f"    iifname {tunnel} meta nfproto ipv6 drop"
            continue
        yield f"    iifname {tunnel} {family} saddr != {subnet} drop"
        # The host also sends to itself from its tunnel address.
        yield f'    iifname != {{ {tunnel}, "lo" }} {family} saddr {subnet} drop'
    yield "  }"


def _forward(rules: EgressRules) -> Iterable[str]:
    into, outof = f'oifname "{rules.interface}"', f'iifname "{rules.interface}"'
    yield "  chain forward {"
    yield "    type filter hook forward priority filter; policy accept;"
    # Packets without a connection are not translated: they would leave with the client's own address.
    yield f"    {outof} ct state invalid drop"
    yield f"    {into} ct state invalid drop"
    # Clamps TCP segments to the route's MTU, as ICMP may be filtered.
    yield f"    {into} tcp flags syn tcp option maxseg size set rt mtu"
    yield f"    {outof} tcp flags syn tcp option maxseg size set rt mtu"
    # Applies to established connections too: one that began while these rules were missing must not continue.
    if rules.isolate_clients:
        yield f"    {outof} {into} {PROHIBITED}"
    yield from _blocks(rules, outof)
    # The tunnel's own subnets are private too: isolate_clients, above, decides on traffic between clients.
    for family, version in FAMILIES:
        yield f'    {outof} oifname != "{rules.interface}" {family} daddr @private{version} {PROHIBITED}'
    # Rejects new connections to clients from outside of the tunnel.
    yield f'    iifname != "{rules.interface}" {into} ct state new {PROHIBITED}'
    yield "  }"


def _blocks(rules: EgressRules, outof: str) -> Iterable[str]:
    """Blocks what clients may reach nowhere: on the internet, on the host or at another client."""
    for family, version in FAMILIES:
        yield f"    {outof} {family} daddr @extra{version} {PROHIBITED}"
    if rules.block_smtp:
        yield f"    {outof} tcp dport {{ {_ports(SMTP_PORTS)} }} reject with tcp reset"


def _local(rules: EgressRules) -> Iterable[str]:
    """Limits what clients may reach on the host itself to the exit's tunnel addresses."""
    outof = f'iifname "{rules.interface}"'
    yield "  chain local {"
    yield "    type filter hook input priority filter; policy accept;"
    yield from _blocks(rules, outof)
    if rules.own_ports:
        yield f"    {outof} tcp dport {{ {_ports(rules.own_ports)} }} reject with tcp reset"
    if rules.block_private:
        yield f"    {outof} ip daddr != {rules.subnet[1]} {PROHIBITED}"
        if rules.subnet6 is not None:
            yield f"    {outof} ip6 daddr != {rules.subnet6[1]} {PROHIBITED}"
    yield "  }"


def _nat(rules: EgressRules) -> Iterable[str]:
    yield "  chain nat {"
    yield "    type nat hook postrouting priority srcnat; policy accept;"
    for family, subnet in (("ip", rules.subnet), ("ip6", rules.subnet6)):
        if subnet is not None:
            fixed = rules.source is not None and rules.source.version == subnet.version
            action = f"snat {family} to {rules.source}" if fixed else "masquerade"
            yield f'    {family} saddr {subnet} oifname != "{rules.interface}" {action}'
    yield "  }"


def _ports(ports: Iterable[int]) -> str:
    return ", ".join(map(str, ports))
