"""Implements `node join`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from appliance.cli import admin, output
from appliance.cli.fleet_founding import dialled_here, import_certificates
from appliance.cli.fleet_server import import_all, joined_in, require_believed
from appliance.domain.errors import Conflict, JoinRefused
from appliance.fleet.hub import nats_program
from appliance.fleet.joining import joining
from appliance.fleet.joining import token as join_token
from appliance.fleet.membership.identity import FleetFolder
from appliance.store.queries import own_accounts

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from appliance.cli.admin import Admin
    from appliance.fleet.joining.messages import JoinAnswer, JoinRequest
    from appliance.fleet.joining.token import JoinToken

STDIN = "-"
MOST_NAMES = 10
LONGEST_NAME = 64  # of an account


def join(config_file: Path | None, text: str, suffix: str | None, *, yes: bool) -> None:
    given = sys.stdin.read() if text == STDIN else text

    async def work(a: Admin) -> None:
        if a.state.in_fleet:
            raise Conflict(
                "this host is in a fleet already: wg-appliance fleet status shows it; to join anew: wg-appliance fleet "
                "leave first"
            )
        require_believed(a)
        token = join_token.decode(given, a.clock.host.now().wall_ms)
        await _join(a, token, suffix, yes=yes)
        await joined_in(a)

    import_all()
    if join_token.is_of_hub(given):
        nats_program.find()
        import_certificates()
    admin.run(config_file, work)


async def _join(a: Admin, token: JoinToken, suffix: str | None, *, yes: bool) -> None:
    """Asks, then stores: a host that is killed between is single, and is let in again when it asks again."""
    folder = FleetFolder(a.state.path)
    keys, node, clock = folder.keys(), a.settings.node, a.clock.host
    async with a.store.read() as db:
        dialled = dialled_here(a.settings, a.state) if token.role == "hub" else ""
        asked = await joining.request_of(db, keys, node.name, node.region, clock.now().wall_ms, dialled)
    if asked.accounts:
        output.confirm(f"{_listed(asked.accounts)}: kept on the hub from now on, with their tokens. Join?", yes=yes)
    renamed: Sequence[str] = ()
    try:
        answer = await joining.join(token, keys, asked, clock)
    except JoinRefused as refused:
        if suffix is None or not refused.names:
            raise
        renamed = refused.names
        asked = renaming(asked, renamed, suffix)
        answer = await joining.join(token, keys, asked, clock)
    if renamed and suffix is not None:
        async with a.store.write() as db:
            await own_accounts.rename(db, renamed, suffix)
    dropped = await joining.become_member(a.store, folder, asked, answer)
    _say(asked, answer, dropped, [f"{name} is {name}{suffix} now" for name in renamed])


def renaming(asked: JoinRequest, names: Collection[str], suffix: str) -> JoinRequest:
    """Returns what is asked for when these accounts have the suffix. Raises Conflict if a new name is taken here."""
    new = {name: f"{name}{suffix}" for name in names}
    taken = set(new.values()) & {*asked.accounts, *asked.unused}
    if taken:
        raise Conflict(f"this host has an account {min(taken)} already: give another --rename-accounts than {suffix}")
    too_long = [name for name in new.values() if len(name) > LONGEST_NAME]
    if too_long:
        raise Conflict(f"the name {too_long[0]} is longer than {LONGEST_NAME} characters: give a shorter suffix")
    offer = tuple(msgspec.structs.replace(each, name=new.get(each.name, each.name)) for each in asked.offer)
    accounts = tuple(sorted(new.get(name, name) for name in asked.accounts))
    return msgspec.structs.replace(asked, accounts=accounts, offer=offer)


def _say(asked: JoinRequest, answer: JoinAnswer, dropped: Sequence[str], renamed: Sequence[str]) -> None:
    hub = next((each.name for each in answer.members if each.role == "hub"), "?")
    exits = ", ".join(sorted(each.name for each in answer.members))
    output.remark(f"in the fleet of {hub} ({exits}) now: accounts and tokens are kept on {hub}")
    output.remark(f"this exit is {asked.name}, in the region {asked.region}")
    if answer.role == "standby":
        output.remark(f"it is the standby: if {hub} is lost, wg-appliance fleet promote on it makes it the hub")
        output.remark(f"other hosts dial {asked.dialled} then: the firewalls on the way have to let that through")
    if dropped:
        same = f"as {hub} has those of the same name"
        output.remark(f"accounts dropped here with their tokens, {same}: {_listed(dropped)}")
    else:
        output.remark("no account was dropped here")
    for line in renamed:
        output.remark(line)
    own = sorted({*asked.accounts, *asked.unused} - {*dropped})
    if own:
        output.remark(f"accounts that are the fleet's now, with their tokens: {_listed(own)}")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
