"""A host whose egress is as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network.firewall.forwarding import HostForwarding
from appliance.network.firewall.state import EgressState

if TYPE_CHECKING:
    from collections.abc import Collection
    from ipaddress import IPv4Address, IPv6Address

    from appliance.network.firewall.state import EgressChanges

IN_PLACE = EgressState(
    rules_stand=True,
    forwarding=HostForwarding(
        values={
            "net/ipv4/conf/all/send_redirects": "0",
            "net/ipv4/ip_forward": "0",
            "net/ipv4/conf/eth0/forwarding": "1",
            "net/ipv6/conf/all/forwarding": "1",
            "net/ipv6/conf/default/forwarding": "0",
        },
        found={},
        uplinks=frozenset({"eth0"}),
    ),
)


class EgressInPlace:
    """Egress that needs nothing done."""

    async def observe(self) -> None:
        """Nothing changes."""

    async def routing_fault(self) -> str | None:
        return None

    def state(self) -> EgressState:
        return IN_PLACE

    async def apply(self, changes: EgressChanges) -> None:
        raise AssertionError(changes)

    async def forget(self, addresses: Collection[IPv4Address | IPv6Address]) -> None:
        """There are no flows."""

    async def forget_others(self, held: Collection[IPv4Address | IPv6Address]) -> None:
        """Likewise."""
