"""Builds parts of a fleet around what this exit has. Imported only on a host that is in one."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError
from appliance.fleet.claims.own_claims import OwnClaims, OwnKey, OwnName
from appliance.fleet.hub import nats_program
from appliance.fleet.membership.own_dialled import OwnDialled, dialled_here
from appliance.fleet.presence.beats import Figures
from appliance.fleet.quota.kept_leases import KeptLeases
from appliance.fleet.quota.leasing import Leasing
from appliance.fleet.quota.own_use import OwnUse
from appliance.fleet.reports.fold_copying import FoldCopying

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from appliance.fleet.link.wire import HubLink
    from appliance.fleet.membership.members import FleetMember
    from appliance.fleet.membership.roster import Roster
    from appliance.fleet.quota.holder import Sharing
    from appliance.fleet.quota.lease_requests import LeaseRequests
    from appliance.server.served_exit import ServedExit


def this_member(roster: Roster, node_id: str) -> FleetMember:
    """Returns this host as the fleet knows it. Raises HostError."""
    own = roster.get(node_id)
    if own is None:
        raise HostError("this host is not among the members of its fleet: wg-appliance fleet leave --force, and join")
    return own


def figures(here: ServedExit, accounts: Callable[[], tuple[int, int]]) -> Figures:
    """Returns what this exit's beats say of it. `accounts`: returns (gen, rev) of those that it has."""
    parts, meter = here.parts, here.parts.meter
    return Figures(
        live=lambda: len(parts.live),
        room=lambda: parts.pool.capacity - parts.pool.in_use,
        moved=lambda: meter.bytes_in + meter.bytes_out,
        line=lambda: parts.ticker.fastest,
        accounts=accounts,
    )


def own_dialled(here: Callable[[], ServedExit]) -> OwnDialled:
    """Builds what knows where other hosts would dial this one as a hub. `here`: as it is when it is looked."""
    return OwnDialled(lambda: dialled_here(here().settings, here().state.addresses)[0], nats_program.find)


def own_claims(here: ServedExit, link: HubLink, node_id: str, fleet_key: bytes) -> OwnClaims:
    """Builds what claims the keys and names of this exit's sessions and devices."""
    records = here.parts.records

    def own_keys() -> Iterator[OwnKey]:
        for device in records.devices:
            shown = f"{device.account}/{device.name}"
            yield OwnKey(device.public_key, device.account_id, device.id, device=True, shown=shown)
        for session in records.live:
            if not session.device_id:
                yield OwnKey(session.public_key, session.account_id, session.id, device=False)

    def names() -> Iterator[OwnName]:
        return (OwnName(device.account_id, device.name, device.account) for device in records.devices)

    return OwnClaims(
        link,
        node_id,
        fleet_key,
        here.clock,
        keys=own_keys,
        names=names,
        holds=lambda key: key in records.live.public_keys() or records.devices.get(key) is not None,
    )


def fold_copying(here: ServedExit, link: HubLink, node_id: str) -> FoldCopying:
    """Builds what copies the hub's fold to this host, which stands by for it."""
    return FoldCopying(node_id, link, here.store, lambda: shutil.disk_usage(here.state.path).free)


def leasing(here: ServedExit, requests: LeaseRequests, sharing: Callable[[], Sharing]) -> Leasing:
    """Builds what borrows its part of accounts' limits for this exit. `sharing`: asked anew now and then."""
    parts, records = here.parts, here.parts.records
    return Leasing(
        requests,
        OwnUse(records, parts.services.terms, parts.peers.exit_lock),
        KeptLeases(records.store),
        here.clock,
        records.lending,
        sharing=sharing,
        wake=parts.wakeup.reschedule,
    )
