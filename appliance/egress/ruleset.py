"""The exit's nftables table, as text for `nft -f`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Network = IPv4Network | IPv6Network

TABLE = "wg_appliance"

SMTP_PORTS = (25, 465, 587, 2525)

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


@dataclass(frozen=True, slots=True)
class EgressRules:
    """`source` is the address traffic leaves from; None: whatever the outgoing interface has (masquerade)."""

    interface: str
    subnet: IPv4Network
    subnet6: IPv6Network | None
    source: IPv4Address | IPv6Address | None
    block_smtp: bool
    block_private: bool
    isolate_clients: bool
    extra_block: Sequence[Network]


def render(rules: EgressRules) -> str:
    """The whole table. Declared, deleted and made in one transaction, so that it is replaced at once."""
    body = [*_sets(rules), *_forward(rules), *_local(rules), *_nat(rules)]
    return "\n".join([remove(), f"table inet {TABLE} {{", *body, "}", ""])


def remove() -> str:
    """Deleting a table that is not there is an error; declaring it first is none."""
    return f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\n"


def _blocked(rules: EgressRules) -> list[Network]:
    return [*(PRIVATE if rules.block_private else ()), *rules.extra_block]


def _sets(rules: EgressRules) -> Iterable[str]:
    for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        networks = [str(n) for n in _blocked(rules) if n.version == version]
        elements = f" elements = {{ {', '.join(networks)} }};" if networks else ""
        # auto-merge: the operator's networks may overlap ours.
        yield f"  set blocked{version} {{ type {kind}; flags interval; auto-merge;{elements} }}"


def _forward(rules: EgressRules) -> Iterable[str]:
    tunnel = f'iifname "{rules.interface}"'
    yield "  chain forward {"
    yield "    type filter hook forward priority filter; policy accept;"
    # A smaller MTU on the way out is met by smaller segments, also where ICMP is filtered.
    yield f'    oifname "{rules.interface}" tcp flags syn tcp option maxseg size set rt mtu'
    yield f"    {tunnel} tcp flags syn tcp option maxseg size set rt mtu"
    # Whether a connection stands already is not asked: one that began while these rules were away must not go on.
    if rules.isolate_clients:
        yield f'    {tunnel} oifname "{rules.interface}" reject with icmpx admin-prohibited'
    yield f"    {tunnel} ip daddr @blocked4 reject with icmpx admin-prohibited"
    yield f"    {tunnel} ip6 daddr @blocked6 reject with icmpx admin-prohibited"
    if rules.block_smtp:
        ports = ", ".join(map(str, SMTP_PORTS))
        yield f"    {tunnel} tcp dport {{ {ports} }} reject with icmpx admin-prohibited"
    # Nobody comes in through the tunnel's addresses that a client did not call.
    yield f'    oifname "{rules.interface}" ct state new reject with icmpx admin-prohibited'
    yield "  }"


def _local(rules: EgressRules) -> Iterable[str]:
    """What clients may reach on the host itself: the exit's tunnel addresses, and no other."""
    if not rules.block_private:
        return
    own = [f"ip daddr != {rules.subnet[1]}"]
    own.append(f"ip6 daddr != {rules.subnet6[1]}" if rules.subnet6 is not None else "meta nfproto ipv6")
    yield "  chain local {"
    yield "    type filter hook input priority filter; policy accept;"
    for match in own:
        yield f'    iifname "{rules.interface}" {match} reject with icmpx admin-prohibited'
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
