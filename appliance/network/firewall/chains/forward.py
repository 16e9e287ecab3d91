"""Renders the chains of forwarded packets: what clients may send and receive through the exit. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network.firewall.chains.destinations import FAMILIES, PROHIBITED, rejections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.firewall.rules import EgressRules


def chain(rules: EgressRules) -> Iterator[str]:
    """Renders a chain for each direction, so that a packet is compared with the rules of its own only."""
    tunnel = f'"{rules.tunnel.interface}"'
    yield "  chain from_clients {"
    yield from _each_way()
    # Applies to established connections too: one that began while these rules were missing must not continue.
    if rules.blocks.other_clients:
        yield f"    oifname {tunnel} {PROHIBITED}"
    yield from rejections(rules.blocks)
    # The tunnel's own subnets are private too: isolate_clients, above, decides on traffic between clients.
    for family, version in FAMILIES:
        yield f"    oifname != {tunnel} {family} daddr @private{version} jump private"
    yield "  }"
    yield "  chain to_clients {"
    yield from _each_way()
    # Rejects new connections to clients from outside of the tunnel.
    yield f"    iifname != {tunnel} ct state new {PROHIBITED}"
    yield "  }"
    yield "  chain forward {"
    yield "    type filter hook forward priority filter; policy accept;"
    yield f"    iifname {tunnel} jump from_clients"
    yield f"    oifname {tunnel} jump to_clients"
    yield "  }"


def _each_way() -> Iterator[str]:
    # Packets without a connection are not translated: they would leave with the client's own address.
    # Conntrack leaves neighbour and listener discovery alone, whatever its destination.
    yield "    ct state invalid,untracked drop"
    # Clamps TCP segments to the route's MTU, as ICMP may be filtered.
    yield "    tcp flags syn tcp option maxseg size set rt mtu"
