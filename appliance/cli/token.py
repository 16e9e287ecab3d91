"""Implements `wg-appliance token ...`: a token is printed once, when created; the store has only its hash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from appliance.cli import admin, kept_accounts, limits, output, short_ids
from appliance.cli.lazy_group import Commands
from appliance.cli.parameters import DURATION, ID, LABEL, NAME, TIER
from appliance.domain import ids
from appliance.domain.entities import Account, Token
from appliance.domain.errors import Conflict, NotFound
from appliance.domain.tiers import Tier
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import sessions as session_rows
from appliance.store.queries import tokens as rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import aiosqlite

    from appliance.cli.admin import Admin


@click.group(cls=Commands)
def token() -> None:
    """Manage bearer tokens for the HTTP API."""


@token.command()
@click.option("--account", "name", type=NAME, required=True, metavar="NAME", help="The account; created if it is new.")
@click.option("--tier", type=TIER, help="The tier of a new account; default: free.")
@click.option("--expires", type=DURATION, metavar="DURATION", help="Such as 30d or 12h; default: never.")
@click.option("--label", type=LABEL, default="", metavar="TEXT", help="A note that token list shows.")
@output.json_option
@click.pass_obj
def create(
    config_file: Path | None, name: str, tier: str | None, expires: int | None, label: str, as_json: bool
) -> None:
    """Create a token and print it. It cannot be shown again."""
    secret = ids.token_secret()

    async def work(a: Admin) -> tuple[Token, bool, str]:
        async with a.write() as db:
            await kept_accounts.require_here(a, db)
            owner, is_new = await _owner(db, name, None if tier is None else Tier(tier), a.now)
            expires_at = None if expires is None else a.now + expires * 1000
            made = Token(ids.token_id(), owner.name, owner.tier, label, a.now, expires_at, None)
            await rows.insert(db, owner, made, ids.token_hash(secret))
            return made, is_new, limits.in_words(a.settings.tiers[made.tier])

    made, is_new, allowed = admin.run(config_file, work)
    if is_new:
        output.remark(f"account {made.account} created, tier {made.tier}")
    until = "never expires" if made.expires_at is None else f"expires {output.rfc3339(made.expires_at)}"
    output.remark(f"token {made.id} of {made.account}, tier {made.tier} ({allowed}), {until}")
    if as_json:
        fields = shape(made)
        del fields["revoked_at"]
        output.write_json({"token": secret} | fields)
    else:
        output.write(secret)


@token.command("list")
@output.limit_option
@output.json_option
@click.pass_obj
def list_(config_file: Path | None, limit: int | None, as_json: bool) -> None:
    """List tokens, oldest first, without their secrets."""

    async def work(a: Admin) -> tuple[list[Token], str, int]:
        async with a.store.read() as db:
            return await rows.everything(db), await kept_accounts.remedy(a, db, "token create --account NAME"), a.now

    tokens, remedy, now = admin.run(config_file, work)
    most = output.newest(limit, as_json=as_json)
    output.cut(len(tokens), most, "tokens")
    tokens = tokens[-most:]
    if as_json:
        output.write_json({"tokens": [shape(each) for each in tokens]})
    else:
        write_table(tokens, now, remedy)


@token.command()
@click.argument("token_id", type=ID, metavar="ID")
@click.option("--end-sessions", is_flag=True, help="End the sessions that were opened with it, too.")
@click.pass_obj
def revoke(config_file: Path | None, token_id: str, end_sessions: bool) -> None:
    """Revoke a token: requests with it get 401. Sessions opened with it continue without --end-sessions."""

    async def work(a: Admin) -> tuple[Token, int]:
        async with a.change() as db:
            await kept_accounts.require_here(a, db)
            stored = await _find(db, token_id)
            await rows.revoke(db, stored.id, a.now)
            return stored, await session_rows.close_of_token(db, stored.id) if end_sessions else 0

    stored, ended = admin.run(config_file, work)
    done = "was revoked already" if stored.revoked_at is not None else f"of {stored.account} revoked"
    sessions = f"; sessions ended: {ended}" if end_sessions else ""
    output.remark(f"token {stored.id} {done}{sessions}")


async def _find(db: aiosqlite.Connection, token_id: str) -> Token:
    """Returns a token by its id, which may be shortened to what is unique. Raises Conflict, or NotFound."""
    stored = await short_ids.found(db, token_id, "token", rows.by_id, rows.ids_like)
    if stored is None:
        # The argument is not repeated: it may be a token.
        raise NotFound("no token has that id; wg-appliance token list shows the ids")
    return stored


async def _owner(db: aiosqlite.Connection, name: str, tier: Tier | None, now: int) -> tuple[Account, bool]:
    """Returns the account, and whether it was created for this. Raises Conflict if it differs from what is asked."""
    stored = await account_rows.by_name(db, name)
    if stored is None:
        made = Account(ids.account_id(), name, tier or Tier.FREE, disabled=False, created_at=now)
        await account_rows.insert(db, made)
        return made, True
    if tier not in (None, stored.tier):
        raise Conflict(
            f"account {name} is of tier {stored.tier}, not {tier}; leave --tier out, or change it first: "
            f"wg-appliance account set {name} --tier {tier}"
        )
    if stored.disabled:
        raise Conflict(
            f"account {name} is disabled, its tokens answer 401; enable it first: "
            f"wg-appliance account set {name} --enabled"
        )
    return stored, False


def shape(t: Token) -> dict[str, Any]:
    return {
        "id": t.id,
        "account": t.account,
        "tier": t.tier,
        "label": t.label,
        "created_at": output.rfc3339(t.created_at),
        "expires_at": output.rfc3339(t.expires_at),
        "revoked_at": output.rfc3339(t.revoked_at),
    }


def write_table(tokens: Sequence[Token], now: int, remedy: str) -> None:
    """Prints the tokens. `remedy`: what to do where there are none."""
    output.write_table(
        ("ID", "ACCOUNT", "TIER", "STATE", "CREATED", "EXPIRES", "LABEL"),
        [
            (
                *(t.id, t.account, t.tier, _state(t, now), output.ago(t.created_at, now)),
                *(output.rfc3339(t.expires_at) or "never", t.label),
            )
            for t in tokens
        ],
        f"no tokens; {remedy}",
        spare=("TIER", "CREATED"),
    )


def _state(t: Token, now: int) -> str:
    if t.revoked_at is not None:
        return "revoked"
    return "expired" if t.expires_at is not None and t.expires_at <= now else "valid"
