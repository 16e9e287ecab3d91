"""Where the self-test's client and target are, and what must be seen of them. Pure.

client namespace                host                        target namespace
tunnel, uplink  ---- links.client    links.target ----  uplink
client_ip         client_gateway          target_gateway    target_ip
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import TYPE_CHECKING

from appliance.entities import Tier
from appliance.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, IPv6Network

    from appliance.config import TierSettings

# Documentation (RFC 5737): no host of the internet has one of these, and the exit's rules let them pass.
RANGES = tuple(IPv4Network(text) for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"))
PREFIX_LENGTH = 30
# Paid sessions stand on invoices.
TIERS = (Tier.FREE, Tier.ANONYMOUS)


@dataclass(frozen=True, slots=True)
class Names:
    """Of one appliance's self-test, always the same, so that a run finds what a killed one left.

    `client_link` and `target_link` are the host's ends; `tunnel` is the client's interface, and names
    wireguard-go's socket, which is the same for all network namespaces.
    """

    client_link: str
    target_link: str
    tunnel: str


def names(interface: str) -> Names:
    """`interface`: the appliance's, which no other on this host has."""
    prefix = f"wgst{hashlib.sha256(interface.encode()).hexdigest()[:8]}"
    return Names(f"{prefix}c", f"{prefix}t", prefix)


@dataclass(frozen=True, slots=True)
class Addresses:
    """The gateways are the host's addresses on its two links."""

    client_gateway: IPv4Address
    client: IPv4Address
    target_gateway: IPv4Address
    target: IPv4Address


def choose_addresses(avoid: Collection[IPv4Network | IPv6Network]) -> Addresses:
    """`avoid`: what the host has a route to, and what the exit blocks. Raises HostError where nothing is left."""
    used = [network for network in avoid if network.version == 4 and network.prefixlen > 0]
    for candidate in (part for block in RANGES for part in block.subnets(new_prefix=PREFIX_LENGTH - 1)):
        if not any(network.overlaps(candidate) for network in used):
            near, far = candidate.subnets(new_prefix=PREFIX_LENGTH)
            return Addresses(near[1], near[2], far[1], far[2])
    raise HostError(
        f"no addresses for the test: {', '.join(map(str, RANGES))} are all routed on this host or in egress.extra_block"
    )


@dataclass(frozen=True, slots=True)
class View:
    """`dialled` is where the client finds the exit, `source` the address the target must see."""

    dialled: IPv4Address
    source: IPv4Address


def view(public_ip: str, addresses: Addresses, host: Collection[IPv4Interface | IPv6Interface]) -> View:
    """Behind a 1:1 NAT the public address leads away from the host: the client dials the host's end of its link, and
    traffic leaves from the address of the interface it leaves by, as it does to the internet."""
    found: IPv4Address | IPv6Address = ip_address(public_ip)
    if isinstance(found, IPv4Address) and any(interface.ip == found for interface in host):
        return View(found, found)
    return View(addresses.client_gateway, addresses.target_gateway)


def roomiest_tier(tiers: Mapping[str, TierSettings]) -> Tier:
    """The one that refuses or ends the test's session last."""

    def room(tier: Tier) -> tuple[float, ...]:
        limits = tiers[tier]
        return tuple(limit or float("inf") for limit in (limits.bytes_limit, limits.seconds_limit, limits.max_session))

    return max(TIERS, key=room)
