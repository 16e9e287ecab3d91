"""Implements `node drain NAME` and `node resume NAME`, which the running server of a hub asks of another exit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from appliance.cli import admin, output
from appliance.cli.fleet_server import POLL_S, require_hub
from appliance.domain.errors import Conflict, NotFound
from appliance.fleet.membership.identity import FleetFolder
from appliance.fleet.rpc.operations import DRAIN, DrainExit
from appliance.store.queries import fleet_members, fleet_requests

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.cli.admin import Admin

DONE_WITHIN_S = 10.0


def drain(config_file: Path | None, name: str, *, drained: bool) -> None:
    async def work(a: Admin) -> bool:
        await require_hub(a, f"other exits are {'drained' if drained else 'resumed'}")
        own_id = FleetFolder(a.state.path).keys().node_id
        async with a.store.write() as db:
            member = await fleet_members.by_name(db, name)
            if member is None:
                raise NotFound(f"no host {name} is in the fleet: wg-appliance fleet status lists them")
            if member.id == own_id:
                raise Conflict(f"{name} is this host: leave its name out")
            asked = msgspec.json.encode(DrainExit(drained=drained))
            number = await fleet_requests.intend(db, member.id, DRAIN.name, asked, a.now)
        if number is None:
            raise Conflict("too much is still to be asked of other exits: try again later")
        return await _is_done(a, number, name)

    done = admin.run(config_file, work)
    will = "takes no new sessions" if drained else "takes new sessions again"
    if done:
        output.remark(f"{'drained' if drained else 'resumed'}: {name} {will}")
    else:
        output.remark(f"queued: {name} has not answered; it {will} as soon as this host's server reaches it")


async def _is_done(a: Admin, number: int, name: str) -> bool:
    """Tells whether the exit has done it in time. Raises Conflict, with the exit's words, if it refuses."""
    end = asyncio.get_running_loop().time() + (DONE_WITHIN_S if a.state.is_served() else 0)
    while True:
        async with a.store.read() as db:
            left = await fleet_requests.outcome(db, number)
        if left is None:
            return True
        if left.operation == fleet_requests.REFUSED:
            async with a.store.write() as db:
                await fleet_requests.done(db, number)
            raise Conflict(f"{name} refuses: {left.request.decode()}")
        if asyncio.get_running_loop().time() >= end:
            return False
        await asyncio.sleep(POLL_S)
