"""Builds what this host does in its fleet, as what it is there: hub, standby or spoke."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from appliance.fleet.hub.hub_serving import HubServing
from appliance.fleet.membership.identity import FleetFolder
from appliance.fleet.membership.roster import Roster
from appliance.server.fleet_assembly import FleetPart
from appliance.server.fleet_role import FleetRole
from appliance.store import peer_lives
from appliance.store.queries import fleet_reports

if TYPE_CHECKING:
    from appliance.fleet.hub_part import HubPart
    from appliance.server.served_exit import ServedExit


async def serving(here: ServedExit) -> HubServing:
    """Builds what runs this host's nats-server while it is to have one: not before it has asked other hubs.

    Raises HostError, StoreUnavailable.
    """
    folder = FleetFolder(here.state.path)
    if (membership := folder.membership()) is not None:
        await FleetRole(here.store, folder, here.clock).yield_if_replaced(membership)
    return HubServing(folder, here.store, here.clock, str(here.settings.fleet.listen))


async def build(here: ServedExit, serving: HubServing) -> tuple[FleetPart, HubPart | None] | None:
    """Builds this host's part; None: it is in no fleet. Raises FleetError, HostError, StoreUnavailable."""
    folder = FleetFolder(here.state.path)
    membership = folder.membership()
    if membership is None:
        return None
    role = FleetRole(here.store, folder, here.clock)
    membership, row = await role.settle(membership, leads=serving.leads())
    async with here.store.write() as db:
        if await fleet_reports.begin_reporting(db):
            await peer_lives.begin(db, here.state.peer_lives, here.clock.now().boot_id)
    roster = Roster(here.store)
    await roster.load()
    standing = await serving.standing()
    server = await serving.server() if standing.leads else None
    part = FleetPart(here, membership, folder.keys(), roster, role, serving, standing)
    of_hub = folder.hub_secrets()
    if server is None or of_hub is None:
        return part, None
    await asyncio.to_thread(_import_hub)
    from appliance.fleet.hub_part import HubPart, HubPlan

    several = standing.cluster > 0
    plan = HubPlan(here.state.path, membership, of_hub, standing.gen, row.node_id, row.base, several)
    hub = HubPart(plan, server, serving.addresses, here.store, roster, here.clock)
    serving.told, hub.ledger.heard = lambda: hub.ledger.told, serving.wake
    return part, hub


def _import_hub() -> None:
    import appliance.fleet.hub_part  # noqa: F401 (a spoke does without its memory)
