"""Implements `wg-appliance session ...`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from appliance.cli import account, admin, output, session_flows, short_ids
from appliance.cli.lazy_group import Commands
from appliance.cli.parameters import ID, NAME, REASON
from appliance.config.load import read_settings
from appliance.domain.entities import Reason, Session, State
from appliance.domain.errors import NotFound
from appliance.network.wireguard.keys import encode
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network
    from pathlib import Path

    import aiosqlite

    from appliance.cli.admin import Admin
    from appliance.config.settings import WireGuardSettings


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
    # Counted before the store is opened, which root does as the store's owner.
    counts = session_flows.count(read_settings(config_file, os.environ).wireguard) if by_flows else None
    live = live or by_flows

    async def work(a: Admin) -> tuple[list[Session], Admin]:
        async with a.store.read() as db:
            account_id = None if name is None else (await account.find(db, name)).id
            asked = None if most == 0 or by_flows else most + 1
            return await rows.page(db, rows.Page(account_id=account_id, live=live, limit=asked)), a

    most = output.newest(limit, as_json=as_json)
    sessions, a = admin.run(config_file, work)
    if counts is not None:
        found = session_flows.holders(sessions, counts, a.settings.wireguard)
        _write_holders(found[: most or None], a, as_json=as_json)
        return
    output.cut(len(sessions), most, "sessions")
    sessions = sessions[: most or None]
    if as_json:
        output.write_json({"sessions": [_shape(s, a.settings.wireguard) for s in sessions]})
        return
    output.write_table(
        ("ID", "ACCOUNT", "TIER", "STATE", "REGION", "ADDRESS", "CREATED", "HANDSHAKE", "IN", "OUT"),
        [
            (
                *(s.id, s.account, s.tier, _state(s), s.region, _address(a.settings.wireguard.subnet, s) or "-"),
                *(output.ago(s.created_at, a.now), output.ago(s.last_handshake_at, a.now)),
                *(output.size(s.bytes_in), output.size(s.bytes_out)),
            )
            for s in sessions
        ],
        "no live sessions" if live else "no sessions",
        spare=("REGION", "TIER"),
    )


def _write_holders(found: list[session_flows.SessionFlows], a: Admin, *, as_json: bool) -> None:
    if not as_json:
        session_flows.write_table(found)
        return
    shaped = [_shape(holder.session, a.settings.wireguard) | session_flows.shape(holder) for holder in found]
    output.write_json({"sessions": shaped})


@session.command()
@click.argument("session_id", type=ID, metavar="ID")
@output.json_option
@click.pass_obj
def show(config_file: Path | None, session_id: str, as_json: bool) -> None:
    """Show a session."""

    async def work(a: Admin) -> tuple[Session, Admin]:
        async with a.store.read() as db:
            return await _find(db, session_id), a

    stored, a = admin.run(config_file, work)
    fields = _shape(stored, a.settings.wireguard)
    if as_json:
        output.write_json(fields)
        return
    fields["note"] = None if stored.note == stored.ending else stored.note
    readable = fields | {"bytes_in": output.size(stored.bytes_in), "bytes_out": output.size(stored.bytes_out)}
    output.write_fields([(name, value) for name, value in readable.items() if value not in (None, "")])


@session.command()
@click.argument("session_id", type=ID, metavar="ID")
@click.option("--reason", "note", type=REASON, metavar="TEXT", help="What its client is told; default: admin.")
@click.pass_obj
def terminate(config_file: Path | None, session_id: str, note: str | None) -> None:
    """End a session (terminated_reason: admin, or TEXT)."""

    async def work(a: Admin) -> tuple[Session, bool]:
        async with a.store.read() as db:
            stored = await _find(db, session_id)
        if stored.state is State.TERMINATED:
            return stored, False
        async with a.change() as db:
            # One that is ending by itself keeps its own reason.
            return stored, await rows.mark_closing(db, [stored.id], Reason.ADMIN, note or "") > 0

    stored, was_live = admin.run(config_file, work)
    output.remark(
        f"session {stored.id} of {stored.account} terminated: {note or Reason.ADMIN}"
        if was_live
        else f"session {stored.id} had ended already"
    )


async def _find(db: aiosqlite.Connection, session_id: str) -> Session:
    """Returns a session by its id, which may be shortened to what is unique.

    Raises Conflict if it is not unique. Raises NotFound if there is none, or it is pending and thus not announced to
    its client.
    """
    stored = await short_ids.found(db, session_id, "session", rows.by_id, rows.ids_like)
    if stored is None or stored.state is State.PENDING:
        raise NotFound(f"no session {session_id}; wg-appliance session list shows them")
    return stored


def _address(subnet: IPv4Network | IPv6Network, s: Session) -> str | None:
    """Returns the client's address; None for an old session whose offset lies outside a subnet changed since."""
    return str(subnet[s.address_offset]) if s.address_offset < subnet.num_addresses else None


def _state(s: Session) -> str:
    return s.state if s.ending is None else f"{s.state} ({s.ending})"


def _shape(s: Session, wireguard: WireGuardSettings) -> dict[str, Any]:
    """Names fields as the HTTP API does where it has them; null where the API leaves a field out."""
    return {
        "id": s.id,
        "account": s.account,
        "tier": s.tier,
        "state": s.state,
        "region": s.region,
        "public_ip": s.public_ip,
        "public_key": encode(s.public_key),
        "address": _address(wireguard.subnet, s),
        "address6": _address(wireguard.subnet6, s) if s.ipv6 and wireguard.subnet6 is not None else None,
        "created_at": output.rfc3339(s.created_at),
        "expires_at": output.rfc3339(s.expires_at),
        "last_handshake_at": output.rfc3339(s.last_handshake_at),
        "bytes_in": s.bytes_in,
        "bytes_out": s.bytes_out,
        "terminated_at": output.rfc3339(s.terminated_at),
        "terminated_reason": s.ending,
        "note": s.note,
    }
