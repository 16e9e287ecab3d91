"""Renders the chain `reflection`: clients reach the host's open services at a public address that is a NAT's. Pure.

The internet reaches them there through the NAT; a client's packet comes out of the tunnel behind it, and would leave
for the NAT, which may not send it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network.firewall.chains.destinations import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.firewall.rules import Address, EgressRules


def chain(rules: EgressRules) -> Iterator[str]:
    yield "  chain reflection {"
    yield "    type nat hook prerouting priority dstnat; policy accept;"
    for version, own in rules.tunnel.own.items():
        for public in rules.services.dialled(version):
            yield from _at(public, own, rules)
    yield "  }"


def _at(public: Address, own: Address, rules: EgressRules) -> Iterator[str]:
    """Yields a rule for each open service. `own`: the exit's address in the tunnel."""
    family = NAMES[public.version]
    # Whether the address is the host's own is the kernel's to say, at each connection. A destination that is
    # blocked stays what it is, and is rejected.
    to_public = f'iifname "{rules.tunnel.interface}" {family} daddr {public} fib daddr type != local'
    to_public += f" {family} daddr != @extra{public.version}"
    for listener in rules.services.open:
        if listener.address.version == public.version and listener.address not in (own, public):
            inside = own if listener.everywhere else listener.address
            target = f"[{inside}]" if inside.version == 6 else str(inside)
            yield f"    {to_public} tcp dport {listener.port} dnat {family} to {target}:{listener.port}"
