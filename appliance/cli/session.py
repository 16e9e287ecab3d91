"""Implements `wg-appliance session ...`."""

from __future__ import annotations

import os
import shlex
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from appliance.cli import admin, output, short_ids
from appliance.cli.lazy_group import Commands
from appliance.cli.parameters import ID, NAME, REASON
from appliance.cli.session_fields import SessionFields
from appliance.cli.session_pages import SessionPages
from appliance.client.humanize import clock_time
from appliance.config.load import read_settings
from appliance.domain import accounting
from appliance.domain.entities import Reason, State
from appliance.domain.errors import NotFound
from appliance.store.queries import devices as device_rows
from appliance.store.queries import node as node_row
from appliance.store.queries import sessions as rows
from appliance.store.queries.session_list import Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    import aiosqlite

    from appliance.cli.admin import Admin
    from appliance.domain.device import Device
    from appliance.domain.entities import Session
    from appliance.store.queries.session_list import ListedSession


@click.group(cls=Commands)
def session() -> None:
    """List, show and terminate sessions."""


@session.command("list")
@click.option("--live", is_flag=True, help="List only live sessions.")
@click.option("--account", "name", type=NAME, metavar="NAME", help="List only this account's.")
@click.option("--flows", "by_flows", is_flag=True, help="List live sessions by their connections now; as root.")
@output.limit_option
@output.json_option
@click.pass_obj
def list_(
    config_file: Path | None, live: bool, name: str | None, by_flows: bool, limit: int | None, as_json: bool
) -> None:
    """List sessions, newest first, or those with the most connections first."""
    most = output.newest(limit, as_json=as_json)
    if by_flows:
        _list_by_flows(config_file, name, most, as_json=as_json)
        return
    find = None if name is None else _finder(name)
    with admin.opened(config_file) as (a, runner):
        selected = Selection(None if find is None else runner.run(find(a)), live)
        pages = SessionPages(a, runner, selected, most)
        output.cut(most + pages.are_cut(), most, "sessions")
        fields = SessionFields(a.settings.wireguard)
        if as_json:
            output.write_json_list("sessions", map(fields.json, chain.from_iterable(pages.read())))
            return
        output.write_long_table(
            ("ID", "ACCOUNT", "DEVICE", "TIER", "STATE", "REGION", "ADDRESS", "CREATED", "HANDSHAKE", "IN", "OUT"),
            lambda: ([_cells(s, fields, a.now) for s in page] for page in pages.read()),
            "no live sessions" if live else "no sessions",
            spare=("REGION", "TIER", "ADDRESS", "HANDSHAKE"),
        )


def _cells(s: ListedSession, fields: SessionFields, now: int) -> Sequence[object]:
    return (
        *(
            s.id,
            s.account,
            s.device_name or "-",
            s.tier,
            s.state if s.ending is None else f"{s.state} ({s.ending})",
            s.region,
        ),
        *(fields.address(s) or "-", output.ago(s.created_at, now), output.ago(s.last_handshake_at, now)),
        *(output.size(s.bytes_in), output.size(s.bytes_out)),
    )


def _finder(name: str) -> Callable[[Admin], Coroutine[Any, Any, str]]:
    """Returns what finds an account's id. It loads what that takes before the store is opened, as its owner."""
    from appliance.cli import account

    async def find(a: Admin) -> str:
        async with a.store.read() as db:
            return (await account.find(db, name)).id

    return find


def _list_by_flows(config_file: Path | None, name: str | None, most: int, *, as_json: bool) -> None:
    """Lists the live sessions, which are no more than addresses, by their connections."""
    from appliance.cli import session_flows

    # Counted before the store is opened, which root does as the store's owner.
    counts = session_flows.count(read_settings(config_file, os.environ).wireguard)
    find = None if name is None else _finder(name)

    async def work(a: Admin) -> tuple[list[Session], dict[str, str], Admin]:
        account_id = None if find is None else await find(a)
        async with a.store.read() as db:
            live = await rows.page(db, rows.Page(account_id=account_id, live=True))
            return live, await device_rows.names(db, [s.device_id for s in live if s.device_id]), a

    sessions, names, a = admin.run(config_file, work)
    found = session_flows.holders(sessions, counts, a.settings.wireguard)[: most or None]
    if not as_json:
        session_flows.write_table(found, names)
        return
    fields = SessionFields(a.settings.wireguard)
    shaped = [fields.of(h.session, names.get(h.session.device_id)) | session_flows.shape(h) for h in found]
    output.write_json({"sessions": shaped})


@session.command()
@click.argument("session_id", type=ID, metavar="ID")
@output.json_option
@click.pass_obj
def show(config_file: Path | None, session_id: str, as_json: bool) -> None:
    """Show a session.

    Its seconds are those in which its tunnel could carry: see `wg-appliance help prices`.
    """

    async def work(a: Admin) -> tuple[Session, str | None, int, Admin]:
        async with a.store.snapshot() as db:
            stored, heartbeat = await _find(db, session_id), (await node_row.read(db)).heartbeat
            device_name = (await device_rows.names(db, [stored.device_id])).get(stored.device_id)
        return stored, device_name, accounting.seconds(stored, heartbeat, a.clock.now()), a

    stored, device_name, seconds, a = admin.run(config_file, work)
    fields = SessionFields(a.settings.wireguard).of(stored, device_name) | {"seconds": seconds}
    if as_json:
        output.write_json(fields)
        return
    fields["note"] = None if stored.note == stored.ending else stored.note
    readable = fields | {"bytes_in": output.size(stored.bytes_in), "bytes_out": output.size(stored.bytes_out)}
    readable["seconds"] = clock_time(seconds)
    output.write_fields([(name, value) for name, value in readable.items() if value not in (None, "")])


@session.command()
@click.argument("session_id", type=ID, metavar="ID")
@click.option("--reason", "note", type=REASON, metavar="TEXT", help="What its client is told; default: admin.")
@click.pass_obj
def terminate(config_file: Path | None, session_id: str, note: str | None) -> None:
    """End a session (terminated_reason: admin, or TEXT)."""

    async def work(a: Admin) -> tuple[Session, bool, Device | None]:
        async with a.store.read() as db:
            stored = await _find(db, session_id)
            device = await device_rows.by_id(db, stored.account_id, stored.device_id)
        if stored.state is State.TERMINATED:
            return stored, False, device
        async with a.change() as db:
            # One that is ending by itself keeps its own reason.
            return stored, await rows.mark_closing(db, [stored.id], Reason.ADMIN, note or "") > 0, device

    stored, was_live, device = admin.run(config_file, work)
    output.remark(
        f"session {stored.id} of {stored.account} terminated: {note or Reason.ADMIN}"
        if was_live
        else f"session {stored.id} had ended already"
    )
    if device is not None:
        name = shlex.quote(f"{device.account}/{device.name}")
        output.remark(f"its device may connect again; to keep it out: wg-appliance device pause {name}")


async def _find(db: aiosqlite.Connection, session_id: str) -> Session:
    """Returns a session by its id, which may be shortened to what is unique.

    Raises Conflict if it is not unique. Raises NotFound if there is none, or it is pending and thus not announced to
    its client.
    """
    stored = await short_ids.found(db, session_id, "session", rows.by_id, rows.ids_like)
    if stored is None or stored.state is State.PENDING:
        raise NotFound(f"no session {session_id}; wg-appliance session list shows them")
    return stored
