"""Renders the chain `local`: what clients may reach on the host itself. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network.firewall.chains.destinations import PROHIBITED, ports, rejections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.firewall.rules import EgressRules


def chain(rules: EgressRules) -> Iterator[str]:
    """Limits what clients may reach on the host itself to the exit's tunnel addresses."""
    outof = f'iifname "{rules.tunnel.interface}"'
    yield "  chain local {"
    yield "    type filter hook input priority filter; policy accept;"
    yield from rejections(rules.blocks, outof)
    if rules.own_ports:
        yield f"    {outof} tcp dport {{ {ports(rules.own_ports)} }} reject with tcp reset"
    if rules.blocks.private:
        yield f"    {outof} ip daddr != {rules.tunnel.subnet[1]} {PROHIBITED}"
        if rules.tunnel.subnet6 is not None:
            yield f"    {outof} ip6 daddr != {rules.tunnel.subnet6[1]} {PROHIBITED}"
    yield "  }"
