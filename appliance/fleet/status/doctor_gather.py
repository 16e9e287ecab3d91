"""Gathers the facts of a host in a fleet for doctor: from its files, and from what the running server has noted."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from appliance.config.own_ports import route_port
from appliance.fleet.hub.certificates import split, validity
from appliance.fleet.hub.files import HubFiles, hub_place
from appliance.fleet.membership.hub_addresses import address_of
from appliance.fleet.membership.identity import FleetFolder
from appliance.fleet.status import doctor_facts, status_file
from appliance.ops.doctor import port_holders
from appliance.ops.doctor.fleet import CertificateDates, FleetFacts, HubPort

if TYPE_CHECKING:
    from appliance.config.load import Settings
    from appliance.domain.clock import Moment
    from appliance.fleet.membership.identity import Membership
    from appliance.store.state_dir import StateDir

DIALLED_S = 2.0


def gather(settings: Settings, state: StateDir, now: Moment) -> FleetFacts | None:
    """Returns the facts; None: this host is in no fleet. Blocking. Raises HostError for a damaged file."""
    membership = FleetFolder(state.path).membership()
    if membership is None:
        return None
    noted, files = status_file.read(state.fleet_status), HubFiles(hub_place(state.path))
    is_hub = membership.role == "hub" or files.config() is not None  # also a standby, of several hubs
    standing = doctor_facts.standing(noted, now)
    port = settings.fleet.listen.port
    return FleetFacts(
        role=membership.role,
        now_ms=now.wall_ms,
        served=state.is_served(),
        hubs=tuple(hub.address for hub in membership.hubs),
        standing=standing,
        certificates=_certificates(membership, state, is_hub=is_hub),
        hub_port=HubPort(port, port_holders.holders(port, "tcp")) if is_hub else None,
        routes=() if standing is None or standing.agreed is None else _routes(membership, FleetFolder(state.path)),
    )


def _routes(membership: Membership, folder: FleetFolder) -> tuple[tuple[str, bool], ...]:
    """Dials the other hubs where hubs dial each other."""
    own = address_of(folder.keys().node_id, "").server_name
    found = []
    for hub in membership.hubs:
        if hub.server_name != own:
            host, _, port = hub.address.rpartition(":")
            at = (host.strip("[]"), route_port(int(port)))
            found.append((f"{host}:{at[1]}", _answers(at)))
    return tuple(found)


def _answers(at: tuple[str, int]) -> bool:
    try:
        socket.create_connection(at, DIALLED_S).close()
    except OSError:
        return False
    return True


def _certificates(membership: Membership, state: StateDir, *, is_hub: bool) -> tuple[CertificateDates, ...]:
    authority = validity(split(membership.ca)[-1])  # of two, that which follows
    found = [CertificateDates("the fleet's authority", authority.begins, authority.ends, renewed=False)]
    leaf = HubFiles(hub_place(state.path)).leaf() if is_hub else None
    if leaf is not None:
        found.append(CertificateDates("this hub's certificate", leaf.begins, leaf.ends, renewed=True))
    return tuple(found)
