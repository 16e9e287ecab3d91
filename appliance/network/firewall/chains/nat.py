"""Renders the chain `nat`: the addresses and ports that clients' packets leave with. Pure.

An answer to a client comes to an address and port of the host. If a service of the host has that port, a client that
sends from it takes the service's answers: conntrack knows the flow, and the service never sees the packet. So TCP and
UDP leave from ports on which the host does not listen.

A plain range keeps a client's port if it is in the range and free, and gives a client's port the same outside port at
all destinations (net/netfilter/nf_nat_core.c, find_appropriate_src), on which hole punching rests. `random` and
`fully-random` would not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address, IPv6Address

    from appliance.network.firewall.rules import EgressRules, PortRange, PortRanges

_NOT_IN_QUOTES = frozenset('"*\\')  # ends the text, or stands for any name; the kernel allows them in names


def chain(rules: EgressRules) -> Iterator[str]:
    yield "  chain nat {"
    # The first chain that translates a flow decides. Of chains with one priority that is the youngest: with the usual
    # one, another program's masquerade of all that leaves an interface could decide on clients' flows.
    yield "    type nat hook postrouting priority srcnat - 10; policy accept;"
    for family, subnet in rules.tunnel.by_family:
        if subnet is None:
            continue
        for interface, address in rules.translation.by_interface:
            if address.version == subnet.version and _NOT_IN_QUOTES.isdisjoint(interface):
                yield from translations(
                    f'{family} saddr {subnet} oifname "{interface}"', family, address, rules.port_ranges
                )
        others = f'{family} saddr {subnet} oifname != "{rules.tunnel.interface}"'
        yield from translations(others, family, None, rules.port_ranges)
    yield "  }"


def translations(
    packets: str, family: str, address: IPv4Address | IPv6Address | None, ranges: PortRanges
) -> Iterator[str]:
    """Renders the rules that translate `packets`, an nftables match. `address` None: the outgoing interface's own."""
    for protocol, ports in (("tcp", ranges.tcp), ("udp", ranges.udp)):
        verdict = "drop" if ports is None else _source(family, address, ports)
        yield f"    {packets} meta l4proto {protocol} {verdict}"
    yield f"    {packets} {_source(family, address, None)}"


def _source(family: str, address: IPv4Address | IPv6Address | None, ports: PortRange | None) -> str:
    suffix = "" if ports is None else f":{ports}"
    if address is None:
        return f"masquerade to {suffix}" if suffix else "masquerade"
    host = f"[{address}]" if suffix and address.version == 6 else str(address)
    return f"snat {family} to {host}{suffix}"
