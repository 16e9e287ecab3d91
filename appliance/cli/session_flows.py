"""Shows which live sessions hold connections, and which open the most: `wg-appliance session list --flows`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from appliance.cli import output
from appliance.domain.entities import State
from appliance.network.firewall import flow_holders
from appliance.network.firewall.flow_holders import FlowCount

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    from appliance.config.settings import WireGuardSettings
    from appliance.domain.entities import Session

NONE = FlowCount(0, 0.0)


@dataclass(frozen=True, slots=True)
class SessionFlows:
    """Pairs a session with its connections, over both IP versions."""

    session: Session
    address: str
    flows: FlowCount


def count(wireguard: WireGuardSettings) -> Mapping[IPv4Address | IPv6Address, FlowCount]:
    """Counts the connections of all clients, within about a second. Raises HostError; only root may."""
    return flow_holders.count(_subnets(wireguard))


def holders(
    sessions: Iterable[Session], counts: Mapping[IPv4Address | IPv6Address, FlowCount], wireguard: WireGuardSettings
) -> list[SessionFlows]:
    """Returns the live sessions, those with the most connections first."""
    subnets = _subnets(wireguard)
    found = []
    for session in sessions:
        offset = session.address_offset
        if session.state is State.TERMINATED or offset >= subnets[0].num_addresses:
            continue
        own = [counts.get(subnet[offset], NONE) for subnet in subnets]
        flows = FlowCount(sum(each.held for each in own), sum(each.opened for each in own))
        found.append(SessionFlows(session, str(subnets[0][offset]), flows))
    return sorted(found, key=lambda holder: (holder.flows.held, holder.flows.opened), reverse=True)


def shape(holder: SessionFlows) -> dict[str, Any]:
    """Returns the fields for JSON."""
    return {"flows": holder.flows.held, "new_flows_per_second": round(holder.flows.opened, 1)}


def write_table(found: Sequence[SessionFlows], device_names: Mapping[str, str]) -> None:
    """`device_names`: by id."""
    output.write_table(
        ("ID", "ACCOUNT", "DEVICE", "TIER", "ADDRESS", "CONNECTIONS", "NEW/S"),
        [
            (
                *(h.session.id, h.session.account, device_names.get(h.session.device_id, "-"), h.session.tier),
                *(h.address, h.flows.held, f"{h.flows.opened:.1f}"),
            )
            for h in found
        ],
        "no live sessions",
    )


def _subnets(wireguard: WireGuardSettings) -> list[IPv4Network | IPv6Network]:
    return [subnet for subnet in (wireguard.subnet, wireguard.subnet6) if subnet is not None]
