"""Gathers the facts of a host in a fleet for doctor: from its files, and from what the running server has noted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.fleet.hub.certificates import split, validity
from appliance.fleet.hub.files import HubFiles, hub_place
from appliance.fleet.membership.identity import FleetFolder
from appliance.fleet.status import doctor_facts, status_file
from appliance.ops.doctor import port_holders
from appliance.ops.doctor.fleet import CertificateDates, FleetFacts, HubPort

if TYPE_CHECKING:
    from appliance.config.load import Settings
    from appliance.domain.clock import Moment
    from appliance.fleet.membership.identity import Membership
    from appliance.store.state_dir import StateDir


def gather(settings: Settings, state: StateDir, now: Moment) -> FleetFacts | None:
    """Returns the facts; None: this host is in no fleet. Blocking. Raises HostError for a damaged file."""
    membership = FleetFolder(state.path).membership()
    if membership is None:
        return None
    is_hub = membership.role == "hub"
    port = settings.fleet.listen.port
    return FleetFacts(
        role=membership.role,
        now_ms=now.wall_ms,
        served=state.is_served(),
        hubs=tuple(hub.address for hub in membership.hubs),
        standing=doctor_facts.standing(status_file.read(state.fleet_status), now),
        certificates=_certificates(membership, state, is_hub=is_hub),
        hub_port=HubPort(port, port_holders.holders(port, "tcp")) if is_hub else None,
    )


def _certificates(membership: Membership, state: StateDir, *, is_hub: bool) -> tuple[CertificateDates, ...]:
    authority = validity(split(membership.ca)[-1])  # of two, that which follows
    found = [CertificateDates("the fleet's authority", authority.begins, authority.ends, renewed=False)]
    leaf = HubFiles(hub_place(state.path)).leaf() if is_hub else None
    if leaf is not None:
        found.append(CertificateDates("this hub's certificate", leaf.begins, leaf.ends, renewed=True))
    return tuple(found)
