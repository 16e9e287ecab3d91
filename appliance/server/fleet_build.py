"""Builds what this host does in its fleet, as what it is there: hub, standby or spoke."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.fleet.hub_part import HubPart, HubPlan
from appliance.fleet.membership.identity import FleetFolder
from appliance.fleet.membership.roster import Roster
from appliance.server.fleet_assembly import FleetPart
from appliance.server.fleet_role import FleetRole
from appliance.store import peer_lives
from appliance.store.queries import fleet_reports

if TYPE_CHECKING:
    from appliance.server.served_exit import ServedExit


async def build(here: ServedExit) -> tuple[FleetPart, HubPart | None] | None:
    """Builds this host's part; None: it is in no fleet. Raises HostError, StoreUnavailable."""
    folder = FleetFolder(here.state.path)
    membership = folder.membership()
    if membership is None:
        return None
    role = FleetRole(here.store, folder, here.clock)
    membership, row = await role.settle(membership)
    async with here.store.write() as db:
        if await fleet_reports.begin_reporting(db):
            await peer_lives.begin(db, here.state.peer_lives, here.clock.now().boot_id)
    roster = Roster(here.store)
    await roster.load()
    part = FleetPart(here, membership, folder.keys(), row, roster, role)
    of_hub = folder.hub_secrets()
    if membership.role != "hub" or of_hub is None:
        return part, None
    plan = HubPlan(here.state.path, membership, of_hub, str(here.settings.fleet.listen), row.gen, row.node_id, row.base)
    return part, HubPart(plan, here.store, roster, here.clock)
