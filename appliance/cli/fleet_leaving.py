"""Implements `fleet leave`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.cli import admin, output
from appliance.cli.fleet_hubs import said_of_the_rest
from appliance.cli.fleet_server import POLL_S, TAKES_PART_S, import_all, noted, require_member, seen
from appliance.domain.entities import Reason
from appliance.domain.errors import Conflict, ConnectFailed, HostError, NotAnswered
from appliance.fleet.hub.files import HubFiles, hub_place
from appliance.fleet.joining import leaving
from appliance.fleet.membership.hub_set import HubSet
from appliance.fleet.membership.identity import FleetFolder
from appliance.fleet.presence.directory import TAKEN_OUT
from appliance.store.queries import fleet_members, fleet_reports, fleet_state, fleet_traces
from appliance.store.queries import node as node_rows
from appliance.store.queries import sessions as session_rows

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.cli.admin import Admin
    from appliance.fleet.membership.identity import Membership
    from appliance.fleet.membership.members import Role
    from appliance.fleet.status.status import FleetStatus

REPORTED_S = 60.0
FORCE = "wg-appliance fleet leave --force"
LEAVE = "End all live sessions, and leave the fleet?"
LEAVE_NOW = "Leave the fleet, without waiting until all is reported? Live sessions go on."
END_FLEET = "End the fleet, of which this host is the hub? Live sessions go on."


def leave(config_file: Path | None, *, force: bool, yes: bool) -> None:
    async def work(a: Admin) -> tuple[bool, list[str]]:
        drained, left_behind = await _is_drained(a), await _left_behind(a)
        if left_behind is not None:
            await _become_single(a, left_behind, resume=False)
            return drained, []
        async with a.store.read() as db:
            said = said_of_the_rest(await fleet_members.present(db), require_member(a).name)
        membership = require_member(a)
        if membership.role == "hub":
            await _require_last(a, force=force)
            output.confirm(END_FLEET, yes=yes)
        else:
            output.confirm(LEAVE_NOW if force else LEAVE, yes=yes)
            await _part(a, membership, force=force)
        await _become_single(a, membership.role, resume=not drained and not force)
        return await _is_drained(a), said

    import_all()
    drained, said = admin.run(config_file, work)
    output.remark("this host has left the fleet: it is a single exit, with the accounts and tokens that it had")
    for line in said:
        output.remark(line)
    if drained:
        output.remark("it takes no new sessions, as it is drained: wg-appliance node resume")


async def _part(a: Admin, membership: Membership, *, force: bool) -> None:
    """Has all reported and this host let go by the hub; with force, says what is left behind."""
    if force:
        _say_unreported(noted(a), membership)
    elif not await _has_signed_off(a, membership):
        await _report_all(a)
        await _sign_off(a, membership)


async def _left_behind(a: Admin) -> Role | None:
    """Returns what the store says this host is in a fleet, if a command that was killed left that: it is in none."""
    async with a.store.read() as db:
        row = await fleet_state.read(db)
    return None if a.state.in_fleet or row is None else row.role


async def _is_drained(a: Admin) -> bool:
    async with a.store.read() as db:
        return (await node_rows.read(db)).drained


async def _require_last(a: Admin, *, force: bool) -> None:
    """Raises Conflict if other hosts are in the fleet of this hub, which are on their own without it."""
    async with a.store.read() as db:
        members = await fleet_members.present(db)
    others = [each.name for each in members if each.role != "hub"]
    if not others:
        return
    names = ", ".join(others)
    if HubSet.of(members).is_cluster and not force:
        raise Conflict(
            "this host is the hub that leads: stop its server until another one leads (systemctl stop wg-appliance "
            "wg-appliance-hub; wg-appliance fleet status there says so), start it, and leave then"
        )
    standby = next((each.name for each in members if each.role == "standby"), None)
    if standby is not None and not force:
        raise Conflict(
            f"{names} would be without a hub: make {standby} the hub first (wg-appliance fleet promote --force on it), "
            "and leave then, as its standby"
        )
    if not force:
        raise Conflict(
            f"{names} would be without a hub: run wg-appliance fleet leave there first, or forget what is lost "
            "(wg-appliance fleet forget NAME)"
        )
    output.remark(f"{names} will be cut off until each has left: {FORCE} there")


def _say_unreported(status: FleetStatus | None, membership: Membership) -> None:
    if status is None:
        output.remark(
            "the server does not run: what it has not reported to the hub is not known, and not counted there"
        )
    elif status.unsent_sessions:
        output.remark(f"not reported, and not counted on the hub: the last use of {_sessions(status.unsent_sessions)}")
    if status is None or status.alone is None or not status.alone.endswith(TAKEN_OUT):
        output.remark(f"on the hub, unless that is lost: wg-appliance fleet forget {membership.name}")


def _sessions(number: int) -> str:
    return "1 session" if number == 1 else f"{number} sessions"


async def _has_signed_off(a: Admin, membership: Membership) -> bool:
    """Tells whether a command that was killed had the hub let this host go. Raises HostError: the hub is not reached,
    or has forgotten this host before it had reported all."""
    status = noted(a)
    if status is None or status.cut_off_since is None:
        return False
    try:
        if await leaving.is_let_in(membership, FleetFolder(a.state.path).keys(), a.clock.host):
            return False
    except ConnectFailed as failure:
        raise HostError(f"{failure} (to leave without the hub: {FORCE})") from failure
    if status.unsent_sessions:
        raise HostError(
            f"the hub has forgotten this host, and takes no reports of it: {FORCE} makes it a single exit, and leaves "
            f"behind the last use of {_sessions(status.unsent_sessions)}"
        )
    return True


async def _report_all(a: Admin) -> None:
    """Ends all sessions, and returns when all is reported. Raises HostError if that does not come about."""
    if noted(a) is None:
        raise HostError(
            "the server does not run here, or takes no part in the fleet, so that nothing is reported: start it "
            f"(systemctl start wg-appliance), or leave what is not reported behind: {FORCE}"
        )
    async with a.change() as db:
        await node_rows.set_drained(db, drained=True)
        await session_rows.mark_closing(db, [s.id for s in await session_rows.unfinished(db)], Reason.DRAINED)
    output.remark("drained: no new sessions, and the live ones are ended; what they used is being reported")
    if not await _await_reports(a):
        last = noted(a)
        left = "?" if last is None else str(last.unsent_sessions)
        since = (
            "" if last is None or last.cut_off_since is None else f"; cut off from the hub since {last.cut_off_since}"
        )
        raise HostError(
            f"sessions that are not reported yet: {left}{since}. Run the same command again later, take new sessions "
            f"again (wg-appliance node resume), or leave what is not reported behind: {FORCE}"
        )


async def _await_reports(a: Admin) -> bool:
    """Returns whether the hub has all in time: by the store, as the status may be a second old, and by the link."""
    with suppress(TimeoutError):
        async with asyncio.timeout(REPORTED_S):
            while not (_all_reported(noted(a)) and await _has_told_all(a)):  # noqa: ASYNC110 (the server reports)
                await asyncio.sleep(POLL_S)
            return True
    return False


async def _has_told_all(a: Admin) -> bool:
    async with a.store.read() as db:
        return not await session_rows.unfinished(db) and not await fleet_reports.is_any_unsent(db)


def _all_reported(status: FleetStatus | None) -> bool:
    if status is None or status.cut_off_since is not None:
        return False
    own = next((each for each in status.nodes if each.id == status.this), None)
    return own is not None and not own.live and status.unsent_sessions == 0


async def _sign_off(a: Admin, membership: Membership) -> None:
    try:
        await leaving.sign_off(membership, FleetFolder(a.state.path).keys(), a.clock.host)
    except ConnectFailed as failure:
        raise HostError(f"{failure} (to leave without the hub: {FORCE})") from failure
    except NotAnswered as failure:
        raise HostError(
            f"the hub has all that is reported, and did not answer that it lets this host go ({failure}): run the same "
            f"command again (to leave without the hub: {FORCE})"
        ) from failure


async def _become_single(a: Admin, was: Role, *, resume: bool) -> None:
    """The membership goes first: without it a host is in no fleet, whatever the store still has of one."""
    leaving.forget(FleetFolder(a.state.path))
    async with replace(a, settle_s=TAKES_PART_S).change() as db:
        await fleet_traces.erase(db)
        if resume:
            await node_rows.set_drained(db, drained=False)
    if a.state.is_served() and await seen(a, lambda status: status is None, TAKES_PART_S) is not None:
        raise HostError("the running server still takes part in the fleet: restart it (systemctl restart wg-appliance)")
    files = HubFiles(hub_place(a.state.path))
    if was == "hub" or files.config() is not None:  # a standby is one of several hubs, perhaps
        files.remove()
