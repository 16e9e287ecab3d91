"""Renders the chain `sources`: clients' addresses come from the tunnel, and only from there. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.firewall.rules import EgressRules


def chain(rules: EgressRules) -> Iterator[str]:
    """Drops spoofed sources before conntrack: only clients' addresses may come from the tunnel, and only from there."""
    tunnel = f'"{rules.tunnel.interface}"'
    yield "  chain sources {"
    yield "    type filter hook prerouting priority raw; policy accept;"
    for family, subnet in rules.tunnel.by_family:
        if subnet is None:
            yield f"    iifname {tunnel} meta nfproto ipv6 drop"
            continue
        yield f"    iifname {tunnel} {family} saddr != {subnet} drop"
        # The host also sends to itself from its tunnel address.
        yield f'    iifname != {{ {tunnel}, "lo" }} {family} saddr {subnet} drop'
    yield "  }"
