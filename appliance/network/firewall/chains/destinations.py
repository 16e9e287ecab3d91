"""Renders the blocked and the allowed destinations: sets, and the rules that decide by them. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from appliance.network.firewall.rules import Address, Blocks, EgressRules, Network

SMTP_PORTS = (25, 465, 587, 2525)
FAMILIES = (("ip", 4), ("ip6", 6))
NAMES = {version: family for family, version in FAMILIES}
KINDS = ((4, "ipv4_addr"), (6, "ipv6_addr"))
PROHIBITED = "reject with icmpx admin-prohibited"
RESET = "reject with tcp reset"

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


# Where clouds answer about the machine itself, its credentials included: AWS, GCP, Azure and others; AWS's containers
# (two); Alibaba Cloud; AWS by IPv6 (two); GCP by IPv6.
METADATA: tuple[Address, ...] = (
    IPv4Address("169.254.169.254"),
    IPv4Address("169.254.170.2"),
    IPv4Address("169.254.170.23"),
    IPv4Address("100.100.100.200"),
    IPv6Address("fd00:ec2::254"),
    IPv6Address("fd00:ec2::23"),
    IPv6Address("fd20:ce::254"),
)
RESOLVER_PORT = 53


def private_ipv4() -> list[IPv4Network]:
    """Returns the blocked networks of IPv4."""
    return [network for network in PRIVATE if isinstance(network, IPv4Network)]


def sets(rules: EgressRules) -> Iterator[str]:
    """Renders the sets of blocked and of allowed networks, and that of allowed ports."""
    for name, networks in networks_by_set(rules.blocks).items():
        yield from _networks(name, networks)
    # Without their NAT64 forms: the same numbers in a translator's network are another host.
    yield from _networks("allowed", _allowed_networks(rules))
    for version, kind in KINDS:
        members = _elements(_allowed_ports(rules, version))
        yield f"  set allowed_ports{version} {{ type {kind} . inet_service;{members} }}"


def _allowed_ports(rules: EgressRules, version: int) -> list[str]:
    """Returns the allowed addresses with a port, each once: the operator's, and a resolver's on the exit."""
    ports = [
        (each.address, each.port) for each in rules.blocks.allowed if not isinstance(each, IPv4Network | IPv6Network)
    ]
    ports += [(address, RESOLVER_PORT) for address in rules.tunnel.own.values()]
    return list(dict.fromkeys(f"{address} . {port}" for address, port in ports if address.version == version))


def _networks(name: str, networks: list[Network]) -> Iterator[str]:
    for version, kind in KINDS:
        members = [str(n) for n in networks if n.version == version]
        # auto-merge: the operator's networks may overlap each other.
        yield f"  set {name}{version} {{ type {kind}; flags interval; auto-merge;{_elements(members)} }}"


def _elements(members: Iterable[str]) -> str:
    text = ", ".join(members)
    return f" elements = {{ {text} }};" if text else ""


def _allowed_networks(rules: EgressRules) -> list[Network]:
    """Returns the allowed networks without metadata services and the exit's own addresses, unless named alone."""
    networks = [each for each in rules.blocks.allowed if isinstance(each, IPv4Network | IPv6Network)]
    for kept in map(ip_network, (*METADATA, *rules.tunnel.own.values())):
        networks = [part for each in networks for part in ([each] if each == kept else _without(kept, each))]
    return networks


def _without(hole: Network, network: Network) -> Iterator[Network]:
    if network.version != hole.version or not network.overlaps(hole):
        yield network
    elif network != hole:
        for half in network.subnets():
            yield from _without(hole, half)


def networks_by_set(blocks: Blocks) -> dict[str, list[Network]]:
    """Returns the blocked networks, also as they are behind a NAT64, by the name of their sets."""
    listed_by_name = {"private": PRIVATE if blocks.private else (), "extra": blocks.extra}
    return {
        name: [*listed, *(_behind(prefix, n) for n in listed if isinstance(n, IPv4Network) for prefix in NAT64)]
        for name, listed in listed_by_name.items()
    }


def _behind(prefix: IPv6Network, network: IPv4Network) -> IPv6Network:
    return IPv6Network(
        (int(prefix.network_address) + int(network.network_address), prefix.prefixlen + network.prefixlen)
    )


def rejections(blocks: Blocks) -> Iterator[str]:
    """Rejects what clients may reach nowhere: on the internet, on the host or at another client."""
    for family, version in FAMILIES:
        yield f"    {family} daddr @extra{version} {PROHIBITED}"
    if blocks.smtp:
        yield f"    tcp dport {{ {ports(SMTP_PORTS)} }} {RESET}"


def allowances() -> Iterator[str]:
    """Returns to the calling chain with what the operator allows, and with what is for a resolver on the exit.

    The host may have translated a destination (a container's published port): what the client had sent to counts too.
    """
    transport = "meta l4proto { tcp, udp }"
    for family, version in FAMILIES:
        yield f"    {family} daddr @allowed{version} return"
        yield f"    {transport} {family} daddr . th dport @allowed_ports{version} return"
        before = f"ct original {family} daddr . ct original proto-dst"
        yield f"    ct status dnat {transport} {before} @allowed_ports{version} return"


def ports(ports: Iterable[int]) -> str:
    return ", ".join(map(str, ports))
