"""Renders the chains that send wireguard-go's packets out by the host's own routes. Pure.

wireguard-go answers out of the interface that a client's packet came in by (conn/bind_linux.go, the ifindex of
IP_PKTINFO). The kernel takes that for the way even where no route leads out by it any more: it then takes the client
for a neighbour (net/ipv4/route.c, ip_route_output_key_hash_rcu), and the packet is lost. A mark that changes in a chain
of type route makes the kernel look for the way again, without the interface (net/ipv4/netfilter.c, ip_route_me_harder).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.firewall.rules import EgressRules

MARK = 0x40000000  # between the two chains alone


def chain(rules: EgressRules) -> Iterator[str]:
    if not rules.routing.answers:
        return
    uplinks = ", ".join(f'"{name}"' for name in sorted(rules.routing.answers.uplinks))
    yield "  chain answers {"
    yield "    type route hook output priority mangle; policy accept;"
    sent = f"meta nfproto ipv4 udp sport {rules.routing.answers.port}"
    yield f'    oifname != {{ {uplinks}, "lo" }} {sent} meta mark set meta mark or {MARK:#x}'
    yield "  }"
    yield "  chain answered {"
    yield "    type filter hook postrouting priority mangle; policy accept;"
    marked = f"udp sport {rules.routing.answers.port} meta mark and {MARK:#x} != 0"
    yield f"    {marked} meta mark set meta mark xor {MARK:#x}"
    yield "  }"
