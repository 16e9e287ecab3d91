"""Queries the invitations by which hosts join the fleet. Secrets are not stored, only what stands for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import sqlite3

    import aiosqlite

    from appliance.domain.fleet_member import Role

_SELECT = "SELECT hash, role, made_at, expires_at, used_by, used_at FROM fleet_invites"


class Invite(msgspec.Struct, frozen=True):
    """Describes an invitation. `used_by`: the NKEY of the host that has joined with it; None: none has."""

    hash: str
    role: Role
    made_at: int
    expires_at: int
    used_by: str | None = None
    used_at: int | None = None


def _invite(row: sqlite3.Row) -> Invite:
    return Invite(**dict(row))


async def add(db: aiosqlite.Connection, invite: Invite) -> None:
    await db.execute(
        "INSERT INTO fleet_invites (hash, role, made_at, expires_at) VALUES (?, ?, ?, ?)",
        (invite.hash, invite.role, invite.made_at, invite.expires_at),
    )


async def by_hash(db: aiosqlite.Connection, hash_: str) -> Invite | None:
    rows = await db.execute_fetchall(f"{_SELECT} WHERE hash = ?", (hash_,))
    return next(map(_invite, rows), None)


async def everything(db: aiosqlite.Connection) -> list[Invite]:
    return [_invite(row) for row in await db.execute_fetchall(f"{_SELECT} ORDER BY made_at, hash")]


async def use(db: aiosqlite.Connection, hash_: str, nkey: str, now: int) -> bool:
    """Lets the host with this NKEY join; the same host may ask again. Returns whether it may.

    It may not if the invitation is unknown, or another host's; or expired, unless the host has joined with it before.
    """
    await db.execute(
        "UPDATE fleet_invites SET used_by = ?, used_at = ? WHERE hash = ? AND used_by IS NULL AND expires_at > ?",
        (nkey, now, hash_, now),
    )
    invite = await by_hash(db, hash_)
    return invite is not None and invite.used_by == nkey


async def delete_expired(db: aiosqlite.Connection, before: int) -> list[str]:
    """Deletes the invitations that expired before then; returns what stood for them."""
    rows = await db.execute_fetchall("DELETE FROM fleet_invites WHERE expires_at < ? RETURNING hash", (before,))
    return [row["hash"] for row in rows]
