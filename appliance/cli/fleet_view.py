"""Implements `fleet status`, and what `node status` says of the fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from appliance.cli import admin, output
from appliance.cli.fleet_server import noted, require_member
from appliance.fleet.status import status as fleet_status
from appliance.fleet.status.status import FleetStatus, NodeStatus
from appliance.store.queries import fleet_conflicts, fleet_members, fleet_state

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.cli.admin import Admin

NOT_SERVED = "not known: the server does not run here"
NOT_NOTED = "not known: the server takes no part yet"


def status(config_file: Path | None, *, as_json: bool) -> None:
    async def work(a: Admin) -> tuple[FleetStatus, bool, int]:
        require_member(a)
        found = await known(a)
        async with a.store.read() as db:
            lacking = len(await fleet_conflicts.everything(db))
        return found, noted(a) is None, lacking

    found, stored_only, lacking = admin.run(config_file, work)
    if as_json:
        output.write_json(msgspec.to_builtins(found))
        return
    if stored_only:
        output.remark("the server does not run here, or takes no part yet: this is what the store has of the fleet")
    else:
        output.write_fields(fleet_status.fields(found))
        output.write("")
    write_nodes(found)
    if lacking:
        output.remark(f"changes of this host's that the fleet took back: {lacking}: wg-appliance fleet conflicts")


def write_nodes(found: FleetStatus) -> None:
    """Prints a table of the fleet's exits."""
    output.write_table(fleet_status.HEADINGS, fleet_status.rows(found), "", spare=fleet_status.SPARE)


async def known(a: Admin) -> FleetStatus:
    """Returns how the fleet stands as the running server says, or what the store has of it where none runs."""
    running = noted(a)
    if running is not None:
        return running
    fault = NOT_NOTED if a.state.is_served() else NOT_SERVED
    async with a.store.read() as db:
        row, members = await fleet_state.read(db), await fleet_members.present(db)
    return FleetStatus(
        nodes=tuple(NodeStatus(m.name, m.id, m.region, m.role, False, fault, None, None, None, None) for m in members),
        generation=0 if row is None else row.gen,
        quorum=False,
        complete_until=None,
        this="" if row is None else row.node_id,
        alone=fault,
        cut_off_since=None,
        failure=None,
        unsent_sessions=0,
        lag_s=0,
        meanwhile=(),
    )


def as_json(found: FleetStatus) -> list[dict[str, Any]]:
    """Returns the exits for `node status --json`."""
    return [msgspec.to_builtins(each) for each in found.nodes]
