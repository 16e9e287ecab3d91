"""Implements `wg-appliance account ...`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from appliance.cli import admin, kept_accounts, limits, output, token
from appliance.cli.lazy_group import Commands
from appliance.cli.parameters import NAME, TIER
from appliance.domain import ids
from appliance.domain.entities import Account, Reason, State
from appliance.domain.errors import Conflict, NotFound
from appliance.domain.tiers import Tier
from appliance.store.queries import accounts as rows
from appliance.store.queries import devices as device_rows
from appliance.store.queries import sessions as session_rows
from appliance.store.queries import tokens as token_rows

if TYPE_CHECKING:
    from pathlib import Path

    import aiosqlite

    from appliance.cli.admin import Admin
    from appliance.domain.entities import Token


@click.group(cls=Commands)
def account() -> None:
    """Manage accounts: who may open sessions, and how much they may use."""


@account.command()
@click.argument("name", type=NAME)
@click.option("--tier", type=TIER, default=Tier.FREE.value, show_default=True)
@output.json_option
@click.pass_obj
def create(config_file: Path | None, name: str, tier: str, as_json: bool) -> None:
    """Create an account."""

    async def work(a: Admin) -> tuple[Account, str]:
        async with a.write() as db:
            await kept_accounts.require_here(a, db)
            if await rows.by_name(db, name) is not None:
                raise Conflict(f"account {name} exists already; to change it: wg-appliance account set")
            new = Account(ids.account_id(), name, Tier(tier), disabled=False, created_at=a.now)
            await rows.insert(db, new)
            return new, limits.in_words(a.settings.tiers[new.tier])

    made, allowed = admin.run(config_file, work)
    if as_json:
        output.write_json(_shape(made))
    else:
        output.write_fields([*_fields(made), ("limits", allowed)])


@account.command("list")
@output.limit_option
@output.json_option
@click.pass_obj
def list_(config_file: Path | None, limit: int | None, as_json: bool) -> None:
    """List accounts, oldest first."""

    async def work(a: Admin) -> tuple[list[Account], str, int]:
        async with a.store.read() as db:
            return await rows.everyone(db), await kept_accounts.remedy(a, db, "account create NAME"), a.now

    accounts, remedy, now = admin.run(config_file, work)
    most = output.newest(limit, as_json=as_json)
    output.cut(len(accounts), most, "accounts")
    accounts = accounts[-most:]
    if as_json:
        output.write_json({"accounts": [_shape(each) for each in accounts]})
        return
    output.write_table(
        ("NAME", "TIER", "STATE", "CREATED", "ID"),
        [(each.name, each.tier, _state(each), output.ago(each.created_at, now), each.id) for each in accounts],
        f"no accounts; {remedy}",
    )


@account.command()
@click.argument("name", type=NAME)
@output.json_option
@click.pass_obj
def show(config_file: Path | None, name: str, as_json: bool) -> None:
    """Show an account, its tokens, and how many live sessions and devices it has."""

    async def work(a: Admin) -> tuple[Account, dict[str, int], list[Token], str, int]:
        async with a.store.read() as db:
            stored = await find(db, name)
            live = [s for s in await session_rows.unfinished_of(db, stored.id) if s.state is State.LIVE]
            has = {"live_sessions": len(live), "devices": await device_rows.count_of(db, stored.id)}
            remedy = await kept_accounts.remedy(a, db, f"token create --account {shlex.quote(stored.name)}")
            return stored, has, await token_rows.of_account(db, stored.id), remedy, a.now

    stored, has, tokens, remedy, now = admin.run(config_file, work)
    if as_json:
        output.write_json(_shape(stored) | has | {"tokens": [token.shape(each) for each in tokens]})
        return
    output.write_fields([*_fields(stored), *((what.replace("_", " "), count) for what, count in has.items())])
    if tokens:
        output.write("")
    token.write_table(tokens, now, remedy)


@account.command("set")
@click.argument("name", type=NAME)
@click.option("--tier", type=TIER, help="For new sessions; its limits apply to live ones too.")
@click.option("--disabled/--enabled", default=None, help="Disabled: its tokens get 401, its devices are held.")
@click.pass_context
def set_(ctx: click.Context, name: str, tier: str | None, disabled: bool | None) -> None:
    """Change an account."""
    if tier is None and disabled is None:
        ctx.fail("Nothing to change: give --tier, --disabled or --enabled.")

    async def work(a: Admin) -> tuple[Account, str, int]:
        async with a.change() as db:
            await kept_accounts.require_here(a, db)
            stored = await find(db, name)
            new_tier = stored.tier if tier is None else Tier(tier)
            new_disabled = stored.disabled if disabled is None else disabled
            await rows.update(db, stored.id, tier=new_tier, disabled=new_disabled)
            if new_disabled:
                await _end_sessions(db, stored)
            devices = await device_rows.count_of(db, stored.id)
        changed = replace(stored, tier=new_tier, disabled=new_disabled)
        return changed, limits.in_words(a.settings.tiers[new_tier]), devices

    changed, allowed, devices = admin.run(ctx.obj, work)
    held = f"; devices held: {devices}" if changed.disabled and devices else ""
    output.remark(f"account {name} changed: {_state(changed)}, tier {changed.tier} ({allowed}){held}")


@account.command()
@click.argument("name", type=NAME)
@output.yes_option
@click.pass_obj
def delete(config_file: Path | None, name: str, yes: bool) -> None:
    """Delete an account: its tokens get 401, its sessions end, its devices are removed."""
    output.confirm(f"Delete account {name}, its tokens and devices, and end its sessions?", yes=yes)

    async def work(a: Admin) -> int:
        async with a.change() as db:
            await kept_accounts.require_here(a, db)
            stored = await find(db, name)
            await rows.delete(db, stored.id, a.now)
            await _end_sessions(db, stored)
            devices = await device_rows.count_of(db, stored.id)
            await device_rows.remove_of(db, stored.id, a.now)
        return devices

    devices = admin.run(config_file, work)
    output.remark(f"account {name} deleted{f'; devices removed: {devices}' if devices else ''}")


async def find(db: aiosqlite.Connection, name: str) -> Account:
    """Returns the account by this name. Raises NotFound if there is none."""
    stored = await rows.by_name(db, name)
    if stored is None:
        raise NotFound(f"no account {name}; wg-appliance account list shows them")
    return stored


async def _end_sessions(db: aiosqlite.Connection, ended: Account) -> None:
    unfinished = await session_rows.unfinished_of(db, ended.id)
    await session_rows.mark_closing(db, [s.id for s in unfinished], Reason.ADMIN)


def _state(a: Account) -> str:
    return "disabled" if a.disabled else "enabled"


def _shape(a: Account) -> dict[str, Any]:
    created = output.rfc3339(a.created_at)
    return {"id": a.id, "name": a.name, "tier": a.tier, "disabled": a.disabled, "created_at": created}


def _fields(a: Account) -> list[tuple[str, object]]:
    created = output.rfc3339(a.created_at)
    return [("name", a.name), ("tier", a.tier), ("state", _state(a)), ("created", created), ("id", a.id)]
