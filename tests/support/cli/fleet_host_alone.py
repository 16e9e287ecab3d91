"""Makes a host a member of a fleet without another host of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.fleet.membership.identity import (
    FleetFolder,
    HubAddress,
    HubSecrets,
    Membership,
    new_fleet_id,
    new_fleet_key,
)
from appliance.store.queries import fleet_changes, fleet_reports, fleet_state

if TYPE_CHECKING:
    import aiosqlite

    from appliance.fleet.membership.members import Role
    from tests.support.cli.command_line import CommandLine

FLEET = new_fleet_id()


def enter(wga: CommandLine, fleet_id: str = FLEET, role: Role = "hub", name: str = "fra1") -> None:
    """Makes the host a member, as `fleet init` or `node join` would."""
    folder = FleetFolder(wga.state.path)
    keys = folder.keys()
    if role == "hub":
        folder.save_hub_secrets(HubSecrets("SU1", "SU2", "-----BEGIN"))

    async def note(db: aiosqlite.Connection) -> None:
        await fleet_state.enter(db, role, keys.node_id, 1)
        await fleet_reports.begin_reporting(db)
        if role == "hub":
            await fleet_changes.record(db)

    wga.write(note)
    hubs = (HubAddress("192.0.2.1:7422", "f.hub.internal"),)
    folder.save_membership(Membership(fleet_id, name, role, hubs, "PEM", new_fleet_key()))
