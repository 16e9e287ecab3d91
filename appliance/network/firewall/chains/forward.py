"""Renders the chain `forward`: what clients may send and receive through the exit. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network.firewall.chains.destinations import FAMILIES, PROHIBITED, rejections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.firewall.rules import EgressRules


def chain(rules: EgressRules) -> Iterator[str]:
    into, outof = f'oifname "{rules.tunnel.interface}"', f'iifname "{rules.tunnel.interface}"'
    yield "  chain forward {"
    yield "    type filter hook forward priority filter; policy accept;"
    # Packets without a connection are not translated: they would leave with the client's own address.
    yield f"    {outof} ct state invalid drop"
    yield f"    {into} ct state invalid drop"
    # Clamps TCP segments to the route's MTU, as ICMP may be filtered.
    yield f"    {into} tcp flags syn tcp option maxseg size set rt mtu"
    yield f"    {outof} tcp flags syn tcp option maxseg size set rt mtu"
    # Applies to established connections too: one that began while these rules were missing must not continue.
    if rules.blocks.other_clients:
        yield f"    {outof} {into} {PROHIBITED}"
    yield from rejections(rules.blocks, outof)
    # The tunnel's own subnets are private too: isolate_clients, above, decides on traffic between clients.
    for family, version in FAMILIES:
        yield f'    {outof} oifname != "{rules.tunnel.interface}" {family} daddr @private{version} jump private'
    # Rejects new connections to clients from outside of the tunnel.
    yield f'    iifname != "{rules.tunnel.interface}" {into} ct state new {PROHIBITED}'
    yield "  }"
