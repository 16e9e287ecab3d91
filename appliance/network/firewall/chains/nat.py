"""Renders the chain `nat`: the addresses that clients' packets leave with. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address, IPv6Address

    from appliance.network.firewall.rules import EgressRules

_NOT_IN_QUOTES = frozenset('"*\\')  # ends the text, or stands for any name; the kernel allows them in names


def chain(rules: EgressRules) -> Iterator[str]:
    yield "  chain nat {"
    yield "    type nat hook postrouting priority srcnat; policy accept;"
    for family, subnet in rules.tunnel.by_family:
        if subnet is None:
            continue
        for interface, address in rules.translation.by_interface:
            if address.version == subnet.version and _NOT_IN_QUOTES.isdisjoint(interface):
                yield f'    {family} saddr {subnet} oifname "{interface}" {_action(family, address)}'
        yield f'    {family} saddr {subnet} oifname != "{rules.tunnel.interface}" {_action(family, None)}'
    yield "  }"


def _action(family: str, address: IPv4Address | IPv6Address | None) -> str:
    """Renders the statement that translates: to an address, or to the outgoing interface's own."""
    return "masquerade" if address is None else f"snat {family} to {address}"
