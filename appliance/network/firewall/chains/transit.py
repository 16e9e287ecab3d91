"""Renders the chain `transit`: what is forwarded between the host's other networks, past the tunnel. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from appliance.network.firewall.rules import EgressRules


def chain(rules: EgressRules) -> Iterator[str]:
    """Drops what only the appliance's own sysctls let the host forward."""
    transit = rules.routing.transit
    if not transit:
        return
    tunnel = f'"{rules.tunnel.interface}"'
    yield "  chain transit {"
    yield "    type filter hook forward priority filter; policy accept;"
    yield f"    iifname {tunnel} accept"
    yield f"    oifname {tunnel} accept"
    # Where br_netfilter is loaded, what a bridge carries between its own ports comes here too.
    if transit.bridges:
        pairs = ", ".join(f'"{bridge}" . "{bridge}"' for bridge in sorted(transit.bridges))
        yield f"    iifname . oifname {{ {pairs} }} accept"
    # Answers to what came in by an interface that another program lets the host forward from.
    yield "    ct direction reply ct state established,related accept"
    if transit.ipv4_from:
        yield f"    iifname {_set(transit.ipv4_from)} meta nfproto ipv4 drop"
    if transit.ipv6_but_from is not None:
        but = f"iifname != {_set(transit.ipv6_but_from)} " if transit.ipv6_but_from else ""
        yield f"    {but}meta nfproto ipv6 drop"
    yield "  }"


def _set(names: Iterable[str]) -> str:
    return f"{{ {', '.join(f'{chr(34)}{name}{chr(34)}' for name in sorted(names))} }}"
