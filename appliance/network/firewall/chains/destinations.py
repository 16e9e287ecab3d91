"""Renders the blocked destinations: sets of networks, and the rules that reject what is sent to them. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from appliance.network.firewall.rules import Blocks, Network

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


def sets(blocks: Blocks) -> Iterator[str]:
    """Renders the sets of blocked networks."""
    for name, networks in networks_by_set(blocks).items():
        for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
            members = ", ".join(str(n) for n in networks if n.version == version)
            elements = f" elements = {{ {members} }};" if members else ""
            # auto-merge: the operator's networks may overlap each other.
            yield f"  set {name}{version} {{ type {kind}; flags interval; auto-merge;{elements} }}"


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


def rejections(blocks: Blocks, outof: str) -> Iterator[str]:
    """Rejects what clients may reach nowhere: on the internet, on the host or at another client."""
    for family, version in FAMILIES:
        yield f"    {outof} {family} daddr @extra{version} {PROHIBITED}"
    if blocks.smtp:
        yield f"    {outof} tcp dport {{ {ports(SMTP_PORTS)} }} reject with tcp reset"


def ports(ports: Iterable[int]) -> str:
    return ", ".join(map(str, ports))
