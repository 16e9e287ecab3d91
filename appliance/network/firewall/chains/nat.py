"""Renders the chain `nat`: the addresses that clients' packets leave with. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.firewall.rules import EgressRules


def chain(rules: EgressRules) -> Iterator[str]:
    yield "  chain nat {"
    yield "    type nat hook postrouting priority srcnat; policy accept;"
    for family, subnet in rules.tunnel.by_family:
        if subnet is not None:
            fixed = rules.translation.source is not None and rules.translation.source.version == subnet.version
            action = f"snat {family} to {rules.translation.source}" if fixed else "masquerade"
            yield f'    {family} saddr {subnet} oifname != "{rules.tunnel.interface}" {action}'
    yield "  }"
