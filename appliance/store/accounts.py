"""Queries: accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.entities import Account, Tier

if TYPE_CHECKING:
    import sqlite3

    import aiosqlite

_SELECT = "SELECT id, name, tier, disabled, created_at FROM accounts WHERE deleted_at IS NULL"


def _account(row: sqlite3.Row) -> Account:
    return Account(row["id"], row["name"], Tier(row["tier"]), bool(row["disabled"]), row["created_at"])


async def insert(db: aiosqlite.Connection, account: Account) -> None:
    await db.execute(
        "INSERT INTO accounts (id, name, tier, disabled, created_at) VALUES (?, ?, ?, ?, ?)",
        (account.id, account.name, account.tier, account.disabled, account.created_at),
    )


async def by_name(db: aiosqlite.Connection, name: str) -> Account | None:
    rows = await db.execute_fetchall(f"{_SELECT} AND name = ?", (name,))
    return next(map(_account, rows), None)


async def by_id(db: aiosqlite.Connection, account_id: str) -> Account | None:
    rows = await db.execute_fetchall(f"{_SELECT} AND id = ?", (account_id,))
    return next(map(_account, rows), None)


async def enabled(db: aiosqlite.Connection, account_id: str) -> bool:
    account = await by_id(db, account_id)
    return account is not None and not account.disabled


async def everyone(db: aiosqlite.Connection) -> list[Account]:
    rows = await db.execute_fetchall(f"{_SELECT} ORDER BY name")
    return [_account(row) for row in rows]


async def update(db: aiosqlite.Connection, account_id: str, *, tier: Tier, disabled: bool) -> None:
    await db.execute("UPDATE accounts SET tier = ?, disabled = ? WHERE id = ?", (tier, disabled, account_id))


async def delete(db: aiosqlite.Connection, account_id: str, now: int) -> None:
    """The row stays, for the sessions and invoices that name it; the name becomes free."""
    await db.execute("UPDATE accounts SET deleted_at = ? WHERE id = ?", (now, account_id))
    await db.execute("UPDATE tokens SET revoked_at = ? WHERE account_id = ? AND revoked_at IS NULL", (now, account_id))
