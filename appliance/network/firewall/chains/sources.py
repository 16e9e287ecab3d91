"""Renders the chains of source addresses: what is the tunnel's comes from the tunnel, and only from there. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.firewall.rules import EgressRules


def chain(rules: EgressRules) -> Iterator[str]:
    """Drops spoofed sources before conntrack: only clients' addresses may come from the tunnel, and only from there.

    Drops also what others than clients send to the exit's own addresses in the tunnel: a host takes packets for each of
    its addresses on every interface, so that neighbours of the uplink would reach what listens there.
    """
    tunnel = f'"{rules.tunnel.interface}"'
    yield "  chain tunnel_sources {"
    for family, subnet in rules.tunnel.by_family:
        yield "    meta nfproto ipv6 drop" if subnet is None else f"    {family} saddr != {subnet} drop"
    yield "  }"
    yield "  chain sources {"
    yield "    type filter hook prerouting priority raw; policy accept;"
    yield f"    iifname {tunnel} goto tunnel_sources"
    # The host also sends to itself from its tunnel address.
    yield '    iifname "lo" accept'
    for family, subnet in rules.tunnel.by_family:
        if subnet is not None:
            yield f"    {family} saddr {subnet} drop"
            yield f"    {family} daddr {subnet[1]} drop"
    yield "  }"
