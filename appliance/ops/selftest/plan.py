"""Chooses addresses and names for the self-test's client and target, and what the test must observe. Pure.

client namespace          host                             target namespace
tunnel, uplink ---------- client_link     target_link ---- uplink
client                    client_gateway  target_gateway   target
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError
from appliance.domain.tiers import Tier

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from appliance.config.load import TierSettings

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

TIERS = (Tier.FREE, Tier.ANONYMOUS)  # paid sessions appear on invoices


@dataclass(frozen=True, slots=True)
class Names:
    """Holds the interface names of the self-test: always the same, so that a run finds what a killed one left.

    `client_link` and `target_link` are the host's ends. `tunnel` is the client's interface, and names wireguard-go's
    socket, which all network namespaces share.
    """

    client_link: str
    target_link: str
    tunnel: str


def names(interface: str) -> Names:
    """Returns the names. `interface`: the appliance's, unique on this host."""
    prefix = f"wgst{hashlib.sha256(interface.encode()).hexdigest()[:8]}"
    return Names(f"{prefix}c", f"{prefix}t", prefix)


@dataclass(frozen=True, slots=True)
class Family:
    """Describes an address family.

    `ranges` are for documentation: no internet host has them, and the exit's rules let them pass. Each link has a
    network of `prefix_length`.
    """

    everything: IPNetwork
    ranges: tuple[IPNetwork, ...]
    prefix_length: int

    @property
    def version(self) -> int:
        return self.everything.version


# RFC 5737, RFC 3849.
RANGES = tuple(map(IPv4Network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")))
RANGES6 = tuple(map(IPv6Network, ("2001:db8::/48", "2001:db8:7767::/48")))
IPV4 = Family(IPv4Network("0.0.0.0/0"), RANGES, 30)
IPV6 = Family(IPv6Network("::/0"), RANGES6, 64)


@dataclass(frozen=True, slots=True)
class LinkAddresses:
    """Holds the addresses of both links in one family. The gateways are the host's addresses on its two links."""

    family: Family
    client_gateway: IPAddress
    client: IPAddress
    target_gateway: IPAddress
    target: IPAddress


def choose_addresses(family: Family, avoid: Iterable[IPNetwork]) -> LinkAddresses:
    """Chooses unused networks. `avoid`: those that the host has routes to or that the exit blocks.

    Raises HostError if nothing is left.
    """
    used = [network for network in avoid if network.version == family.version and network.prefixlen > 0]
    for candidate in _candidates(family):
        if not any(network.overlaps(candidate) for network in used):
            near, far = candidate.subnets(new_prefix=family.prefix_length)
            return LinkAddresses(family, near[1], near[2], far[1], far[2])
    raise HostError(
        f"no addresses for the test: {', '.join(map(str, family.ranges))} are all routed on this host "
        "or in egress.extra_block"
    )


def _candidates(family: Family) -> Iterator[IPNetwork]:
    """Yields networks, each large enough for two links."""
    for block in family.ranges:
        yield from block.subnets(new_prefix=family.prefix_length - 1)


def dialled(public_ip: IPAddress, ipv4: LinkAddresses, own: Collection[IPAddress]) -> IPAddress:
    """Returns the exit's address for the client. Behind a 1:1 NAT the public address would lead away from the host."""
    return public_ip if public_ip.version == 4 and public_ip in own else ipv4.client_gateway


def roomiest_tier(tiers: Mapping[str, TierSettings]) -> Tier:
    """Returns the tier that refuses or ends the test's session last."""

    def limits_of(tier: Tier) -> tuple[float, ...]:
        limits = tiers[tier]
        return tuple(limit or float("inf") for limit in (limits.bytes_limit, limits.seconds_limit, limits.max_session))

    return max(TIERS, key=limits_of)
