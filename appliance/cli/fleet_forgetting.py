"""Implements `fleet forget`."""

from __future__ import annotations

import asyncio
import shlex
from typing import TYPE_CHECKING

from appliance.cli import admin, output
from appliance.cli.fleet_hubs import said_of_the_rest
from appliance.cli.fleet_leaving import FORCE
from appliance.cli.fleet_server import POLL_S, import_all, noted, require_hub, seen
from appliance.domain.errors import Conflict, HostError, NotFound
from appliance.store.queries import fleet_members, fleet_partings

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.cli.admin import Admin
    from appliance.fleet.membership.members import FleetMember
    from appliance.store.queries.fleet_partings import FreedClaims

FREED_S, FORGOTTEN_S = 20.0, 5.0
LEAVE_THERE = "wg-appliance fleet leave on it would report all first"
FORGET = "Take {name} out of the fleet? What it has not reported is not counted."
LATER = "the hub frees what {name} held (keys of clients, names of devices) once its server and nats-server run"
HAD_KEYS = (
    "{name} had the fleet's keys, as a standby has: if it may be in other hands, begin a new fleet, with new tokens"
)
ANOTHER = "another standby joins with a token of wg-appliance fleet invite --hub"


def forget(config_file: Path | None, name: str, *, yes: bool, as_json: bool) -> None:
    async def work(a: Admin) -> tuple[list[str], bool, FreedClaims | None]:
        await require_hub(a, "hosts are forgotten")
        async with a.store.read() as db:
            member, members = await fleet_members.by_name(db, name), await fleet_members.present(db)
        if member is None:
            raise NotFound(f"no host {name} is in the fleet: wg-appliance fleet status lists them")
        if member.role == "hub":
            raise Conflict(
                f"{name} is the hub: wg-appliance fleet leave on it ends the fleet; if it is lost, the standby takes "
                "its place: wg-appliance fleet promote on that one (of three hubs, another does by itself)"
            )
        alive = any(each.name == name and each.alive for each in getattr(noted(a), "nodes", ()))
        output.confirm((f"{name} is connected: {LEAVE_THERE}. " if alive else "") + FORGET.format(name=name), yes=yes)
        freed = await _forget(a, member)
        await seen(a, lambda status: status is None or name not in [each.name for each in status.nodes], FORGOTTEN_S)
        rest = said_of_the_rest(members, name)
        said = [HAD_KEYS.format(name=name), *(rest or [ANOTHER])] if member.role == "standby" else rest
        return said, alive, freed

    import_all()
    said, alive, freed = admin.run(config_file, work)
    if alive:
        output.remark(f"{name} was connected: on it, {FORCE} makes it a single exit")
    output.remark(f"{name} is forgotten: the hub lets it in no more; to come back it joins with a new token")
    for line in said:
        output.remark(line)
    if freed is None:
        output.remark(LATER.format(name=name))
    _show(name, freed, as_json=as_json)


async def _forget(a: Admin, member: FleetMember) -> FreedClaims | None:
    """Returns what was freed; None: the server does not run, or could not yet. Raises HostError: nothing is done."""
    async with a.write() as db:
        number = await fleet_partings.note(db, member.id, fleet_partings.FORGOTTEN, a.now)
        if number is None:
            raise HostError("too much is still to be asked of other hosts: wg-appliance fleet status shows who is away")
        await fleet_members.mark_left(db, member.id, a.now)
    if not a.state.is_served():
        return None
    end = asyncio.get_running_loop().time() + FREED_S
    while True:
        async with a.store.read() as db:
            freed = await fleet_partings.told(db, number)
        if freed is not None:
            async with a.store.write() as db:
                await fleet_partings.heard(db, number)
            return freed
        if asyncio.get_running_loop().time() >= end:
            return None
        await asyncio.sleep(POLL_S)


def _show(name: str, freed: FreedClaims | None, *, as_json: bool) -> None:
    """Says which devices were on the host: their files lead nowhere now. None are known where nothing is freed yet."""
    devices = () if freed is None else freed.devices
    if as_json:
        shown = [{"account": each.account, "name": each.device, "exit": name} for each in devices]
        keys = None if freed is None else freed.keys
        output.write_json({"forgotten": name, "freed_keys": keys, "devices": shown})
        return
    if devices:
        output.remark(f"these devices were on {name}; on another exit, their owners get new files:")
    for each in devices:
        named = f"{each.account}/{each.device}"
        output.write(f"{named}: was on {name}; make it anew: wg-appliance device add {shlex.quote(named)}")
