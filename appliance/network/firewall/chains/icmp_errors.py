"""Renders the chain `errors`: ICMP errors from clients are let through for flows of their own only. Pure.

A forged "fragmentation needed" would cut the path MTU of the host's own connections, WireGuard's to other clients
among them, for ten minutes (net.ipv4.route.mtu_expires); a forged "port unreachable" would leave translated, and end
another client's flow. Conntrack calls each RELATED whose quoted packet is of any flow the host knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.firewall.rules import EgressRules

ERRORS = {
    "ip": "icmp type { destination-unreachable, source-quench, redirect, time-exceeded, parameter-problem }",
    # All of them, the unassigned too (RFC 4443, 2.1): conntrack relates each to the flow that it quotes, and the kernel
    # hands each to that flow's socket.
    "ip6": "icmpv6 type < 128",
}


def sets(rules: EgressRules) -> Iterator[str]:
    """Renders the sets that the chain compares with: a rule cannot compare two fields of a packet with each other.

    An element is an address twice. The sender's is added before it is looked up with an end of the flow in its place.
    """
    for family, subnet in rules.tunnel.by_family:
        if subnet is not None:
            kind = {"ip": "ipv4_addr", "ip6": "ipv6_addr"}[family]
            yield f"  set same_{family} {{ type {kind} . {kind}; size 65535; flags dynamic,timeout; timeout 100ms; }}"


def chain(rules: EgressRules) -> Iterator[str]:
    families = [family for family, subnet in rules.tunnel.by_family if subnet is not None]
    for family in families:
        yield f"  chain errors_{family} {{"
        yield f"    add @same_{family} {{ {family} saddr . {family} saddr }}"
        # Of an error, `ct` is the flow that it quotes; there is none if the quoted packet is of no flow.
        for end in ("saddr", "daddr"):
            yield f"    {family} saddr . ct original {family} {end} @same_{family} accept"
        yield "    drop"
        yield "  }"
    yield "  chain errors {"
    yield "    type filter hook prerouting priority dstnat + 10; policy accept;"
    for family in families:
        yield f'    iifname "{rules.tunnel.interface}" {ERRORS[family]} goto errors_{family}'
    yield "  }"
