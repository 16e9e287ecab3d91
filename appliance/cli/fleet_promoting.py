"""Implements `fleet promote` and `fleet conflicts`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from appliance.cli import admin, output
from appliance.cli.fleet_founding import dialled_here, import_certificates, require_free
from appliance.cli.fleet_server import SEE_LOG, TAKES_PART_S, noted, require_member, seen
from appliance.config.reloadable import differing
from appliance.config.settings import by_key
from appliance.domain.clock import rfc3339
from appliance.domain.errors import Conflict, ConnectFailed, FleetError, HostError
from appliance.fleet.accounts import generations, terms
from appliance.fleet.hub import nats_program
from appliance.fleet.link.connect_failure import Hindrance
from appliance.fleet.membership.hub_addresses import brought_up_to_date
from appliance.fleet.membership.hub_set import HubSet
from appliance.fleet.membership.identity import FleetFolder
from appliance.server.fleet_role import user_of
from appliance.store.queries import accounts, fleet_conflicts, fleet_members, fleet_state, fleet_terms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from appliance.cli.admin import Admin
    from appliance.fleet.membership.identity import Membership
    from appliance.fleet.status.status import FleetStatus
    from appliance.store.queries.fleet_conflicts import LackingChange
    from appliance.store.queries.fleet_state import FleetRow

FORCE = "wg-appliance fleet promote --force"


def promote(config_file: Path | None, *, force: bool) -> None:
    async def work(a: Admin) -> tuple[list[str], int, float | None]:
        membership = require_member(a)
        row, old = await _require_standby(a)
        if FleetFolder(a.state.path).hub_secrets() is None:
            raise HostError("this host lacks a hub's secrets: take it out of the fleet, and join anew as the standby")
        if len(old) == 1:  # else its nats-server runs already, as one of several
            require_free(str(a.settings.fleet.listen))
        await _require_hub_gone(a, membership, force=force)
        _require_followed(row, force=force)
        _require_all_followed(noted(a), force=force)
        await _say_terms(a)
        began = a.clock.host.now().boot_ms
        generation = await _begin(a, membership, row)
        await _await_hub(a, generation)
        return old, generation, (a.clock.host.now().boot_ms - began) / 1000 if a.state.is_served() else None

    nats_program.find()
    import_certificates()
    old, generation, seconds = admin.run(config_file, work)
    since = "from when its server is started" if seconds is None else f"now: it took {seconds:.1f} s"
    output.remark(f"this host is the hub of generation {generation} {since}")
    for line in what_becomes_of(old):
        output.remark(line)


def what_becomes_of(old: Sequence[str]) -> list[str]:
    """Returns what is said of the other hubs of before, the one that led first."""
    if len(old) == 1:
        return [
            f"the other exits find it by themselves; {old[0]} becomes the standby when it is back",
            f"if it is lost for good: wg-appliance fleet forget {old[0]}, then wg-appliance fleet invite --hub",
        ]
    names = ", ".join(old)
    return [
        f"the other exits find it by themselves; {names} become spokes when they are back",
        f"three hubs again: wg-appliance fleet hubs with their names, here; what is lost for good ({names}): "
        "wg-appliance fleet forget NAME",
    ]


async def _require_standby(a: Admin) -> tuple[FleetRow, list[str]]:
    """Returns the names of the other hubs, too. Raises Conflict if this host is not a standby."""
    async with a.store.read() as db:
        row, members = await fleet_state.read(db), await fleet_members.present(db)
    if row is not None and row.role == "standby":
        hubs = HubSet.of(members)
        if hubs.is_cluster:
            return row, [each.name for each in hubs.hubs if each.id != row.node_id]
        return row, [next((each.name for each in members if each.role == "hub"), "the old hub")]
    if row is not None and row.role == "hub":
        raise Conflict("this host is the hub already: wg-appliance fleet status")
    standby = next((each.name for each in members if each.role == "standby"), None)
    if standby is not None:
        raise Conflict(f"{standby} is the standby: run this command there")
    raise Conflict(
        "the fleet has no standby: one joins with a token of wg-appliance fleet invite --hub, while there is a hub; "
        "without one, restore the hub's backup"
    )


async def _require_hub_gone(a: Admin, membership: Membership, *, force: bool) -> None:
    """Raises Conflict if a hub is there: two at once each lead those that they reach."""
    keys = FleetFolder(a.state.path).keys()
    for hub in membership.hubs:
        try:
            await generations.ask(user_of(membership, keys), keys.node_id, hub, a.clock.host)
            there = f"the hub answers at {hub.address}"
        except ConnectFailed as failure:
            if failure.reason != Hindrance.KEY_NOT_KNOWN:
                continue
            there = f"the hub is at {hub.address} and does not know this host, which the others will not follow"
        except FleetError:
            there = f"the hub's nats-server answers at {hub.address}, its wg-appliance does not"
        if not force:
            raise Conflict(
                f"{there}: stop it first (systemctl stop wg-appliance wg-appliance-hub on it), or promote this host "
                f"all the same, and it becomes the standby: {FORCE}"
            )
        output.remark(f"{there}: it becomes the standby as soon as it reaches this host")


def _require_followed(row: FleetRow, *, force: bool) -> None:
    """Raises Conflict if this host has nothing of the hub's generation yet: it has just yielded, or joined."""
    if row.acc_rev:
        return
    lost = f"this host has followed no change of generation {row.gen} yet"
    if not force:
        raise Conflict(f"{lost}: reach the hub until it has, or lose the generation's changes: {FORCE}")
    output.remark(f"lost, unless the old hub comes back and fleet conflicts lists them: {lost}")


def _require_all_followed(status: FleetStatus | None, *, force: bool) -> None:
    """Raises Conflict if others have told of changes that this host does not have."""
    if status is None:
        output.remark("the server does not run here: whether the hub had changes that this host lacks is not known")
        return
    if not status.behind:
        return
    lost = f"changes of accounts, tokens or hosts that this host does not have: {status.behind}"
    if not force:
        raise Conflict(f"{lost}: reach the hub until it has them, or lose them: {FORCE}")
    output.remark(f"lost, unless the old hub comes back and fleet conflicts lists them: {lost}")


async def _say_terms(a: Admin) -> None:
    """Names what becomes of tiers and prices, which are those of the hub's configuration."""
    async with a.store.read() as db:
        text = await fleet_terms.read(db)
    if text is None:
        return
    own, fleets = by_key(a.settings), by_key(terms.over(a.settings, text))
    for key in differing(own, fleets):
        output.remark(f"{key} is {own.get(key, 'not set')} from now on, and was {fleets.get(key, 'not set')}")


async def _begin(a: Admin, membership: Membership, row: FleetRow) -> int:
    """Begins the generation. A command that is killed here has done it, or nothing."""
    dialled = dialled_here(a.settings, a.state)
    async with replace(a, settle_s=TAKES_PART_S).change() as db:
        generation = await generations.begin(db, dialled, a.now)
        members = await fleet_members.everyone(db)
    FleetFolder(a.state.path).save_membership(brought_up_to_date(membership, row.node_id, "hub", members))
    return generation


async def _await_hub(a: Admin, generation: int) -> None:
    """Returns when the running server is the hub. Raises HostError if it is not in time."""
    if not a.state.is_served():
        return

    def leads(status: FleetStatus | None) -> bool:
        if status is None or status.cut_off_since is not None or status.generation != generation:
            return False
        return any(each.id == status.this and each.role == "hub" for each in status.nodes)

    if not leads(await seen(a, leads, TAKES_PART_S)):
        raise HostError(f"the running server is not the hub yet: {SEE_LOG}, or restart it")


def conflicts(config_file: Path | None, *, dismiss: bool, as_json: bool) -> None:
    async def work(a: Admin) -> tuple[list[LackingChange], dict[str, str]]:
        require_member(a)
        async with a.store.write() as db:
            found = await fleet_conflicts.everything(db)
            known = await accounts.by_ids(db, [_fields(each).get("account_id", "") for each in found])
            if dismiss:
                await fleet_conflicts.dismiss(db)
        return found, {id_: account.name for id_, account in known.items()}

    found, owners = admin.run(config_file, work)
    owners |= {each.id: _fields(each)["name"] for each in found if each.kind == "account" and each.row is not None}
    if as_json:
        output.write_json([_described(each) for each in found])
        return
    rows = [(each.kind, *_named(each, owners), rfc3339(each.noted_at)) for each in found]
    output.write_table(("KIND", "NAME", "ID", "STATE", "NOTED"), rows, "the fleet lacks no change of this host's")
    if dismiss and found:
        output.remark(f"dismissed: {len(found)}")


def _fields(change: LackingChange) -> dict[str, Any]:
    fields: dict[str, Any] = {} if change.row is None else json.loads(change.row)
    return fields


def _named(change: LackingChange, owners: Mapping[str, str]) -> tuple[str, str, str]:
    """Returns the name, the id and what was done to it. A token is named after its account."""
    fields = _fields(change)
    name = fields.get("name") or " ".join(filter(None, (owners.get(fields.get("account_id", "")), fields.get("label"))))
    gone = change.row is None or fields.get("deleted_at") or fields.get("left_at")
    state = "removed" if gone else "revoked" if fields.get("revoked_at") else "added or changed"
    return name or "-", change.id, state


def _described(change: LackingChange) -> dict[str, Any]:
    """Leaves out what stands for a token's secret."""
    shown = {key: value for key, value in _fields(change).items() if key not in ("hash", "xkey", "nkey")}
    return {"kind": change.kind, "id": change.id, "row": shown or None, "noted_at": rfc3339(change.noted_at)}
