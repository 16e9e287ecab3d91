"""Queries accounts."""

from __future__ import annotations

import json
from sys import intern
from typing import TYPE_CHECKING

from appliance.domain.entities import Account
from appliance.domain.tiers import Tier
from appliance.domain.windows import Window, Windows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    import aiosqlite

_ALL = """
SELECT id, name, tier, disabled, created_at,
    bytes_opened_at, bytes_used, bytes_since, time_opened_at, time_used_ms, time_since
FROM accounts
"""
_SELECT = f"{_ALL} WHERE deleted_at IS NULL"


def from_row(row: sqlite3.Row) -> Account:
    """Builds an account from a row that has all of the table's columns."""
    traffic = Window(row["bytes_opened_at"], row["bytes_used"], row["bytes_since"])
    time = Window(row["time_opened_at"], row["time_used_ms"], row["time_since"])
    return Account(
        id=intern(row["id"]),
        name=intern(row["name"]),
        tier=Tier(row["tier"]),
        disabled=bool(row["disabled"]),
        created_at=row["created_at"],
        windows=Windows(traffic, time),
    )


async def insert(db: aiosqlite.Connection, account: Account) -> None:
    await db.execute(
        "INSERT INTO accounts (id, name, tier, disabled, created_at) VALUES (?, ?, ?, ?, ?)",
        (account.id, account.name, account.tier, account.disabled, account.created_at),
    )


async def by_name(db: aiosqlite.Connection, name: str) -> Account | None:
    rows = await db.execute_fetchall(f"{_SELECT} AND name = ?", (name,))
    return next(map(from_row, rows), None)


async def ever_called(db: aiosqlite.Connection, name_or_id: str) -> list[Account]:
    """Returns accounts with this id, or with this name now or earlier (deleted ones too); existing ones first."""
    rows = await db.execute_fetchall(
        f"{_ALL} WHERE name = ? OR id = ? ORDER BY deleted_at IS NULL DESC, created_at DESC", (name_or_id, name_or_id)
    )
    return [from_row(row) for row in rows]


async def by_id(db: aiosqlite.Connection, account_id: str) -> Account | None:
    rows = await db.execute_fetchall(f"{_SELECT} AND id = ?", (account_id,))
    return next(map(from_row, rows), None)


async def by_ids(db: aiosqlite.Connection, account_ids: Iterable[str]) -> dict[str, Account]:
    """Returns those of the accounts that exist, by id, in one statement."""
    sql = f"{_SELECT} AND id IN (SELECT value FROM json_each(?))"  # noqa: S608 (constants)
    rows = await db.execute_fetchall(sql, (json.dumps(list(account_ids)),))
    return {account.id: account for account in map(from_row, rows)}


async def everyone(db: aiosqlite.Connection) -> list[Account]:
    rows = await db.execute_fetchall(f"{_SELECT} ORDER BY name")
    return [from_row(row) for row in rows]


async def of_unfinished_sessions(db: aiosqlite.Connection) -> list[Account]:
    """Returns the accounts of unfinished sessions, disabled and deleted ones too, while their sessions are ending."""
    unfinished = f"{_ALL} WHERE id IN (SELECT account_id FROM sessions WHERE state <> 'terminated')"  # noqa: S608 (constants)
    async with await db.execute(unfinished) as cursor:
        return [from_row(row) async for row in cursor]


async def of_unfinished_sessions_and_devices(db: aiosqlite.Connection) -> list[Account]:
    """Returns the same, and the accounts of devices."""
    wanted = """
    WHERE id IN (SELECT account_id FROM sessions WHERE state <> 'terminated'
                 UNION SELECT account_id FROM devices WHERE removed_at IS NULL)
    """
    async with await db.execute(f"{_ALL} {wanted}") as cursor:
        return [from_row(row) async for row in cursor]


async def put_windows(db: aiosqlite.Connection, accounts: Iterable[Account]) -> None:
    await db.executemany(
        """
        UPDATE accounts SET bytes_opened_at = ?, bytes_used = ?, bytes_since = ?,
            time_opened_at = ?, time_used_ms = ?, time_since = ?
        WHERE id = ?
        """,
        [
            (
                *(a.windows.traffic.opened_at, a.windows.traffic.used, a.windows.traffic.since),
                *(a.windows.time.opened_at, a.windows.time.used, a.windows.time.since),
                a.id,
            )
            for a in accounts
        ],
    )


async def update(db: aiosqlite.Connection, account_id: str, *, tier: Tier, disabled: bool) -> None:
    await db.execute("UPDATE accounts SET tier = ?, disabled = ? WHERE id = ?", (tier, disabled, account_id))


async def delete(db: aiosqlite.Connection, account_id: str, now: int) -> None:
    """Marks the account deleted and revokes its tokens.

    The row stays for the sessions and invoices that refer to it; the name becomes free.
    """
    await db.execute("UPDATE accounts SET deleted_at = ? WHERE id = ?", (now, account_id))
    await db.execute("UPDATE tokens SET revoked_at = ? WHERE account_id = ? AND revoked_at IS NULL", (now, account_id))
