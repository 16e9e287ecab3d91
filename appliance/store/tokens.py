"""Queries: bearer tokens. Only their hashes are here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.entities import Tier, Token
from appliance.store import accounts

if TYPE_CHECKING:
    import sqlite3

    import aiosqlite

    from appliance.entities import Account

_LIST = """
SELECT t.id, a.name, a.tier, t.label, t.created_at, t.expires_at, t.revoked_at
FROM tokens t JOIN accounts a ON a.id = t.account_id
"""


def _token(row: sqlite3.Row) -> Token:
    return Token(
        id=row["id"],
        account=row["name"],
        tier=Tier(row["tier"]),
        label=row["label"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
    )


async def insert(db: aiosqlite.Connection, account: Account, token: Token, token_hash: bytes) -> None:
    await db.execute(
        "INSERT INTO tokens (id, account_id, hash, label, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
        (token.id, account.id, token_hash, token.label, token.created_at, token.expires_at),
    )


async def account_of(db: aiosqlite.Connection, token_hash: bytes, now: int) -> tuple[str, Account] | None:
    """The token's id and its account, while the token counts: not revoked or expired, account enabled."""
    rows = await db.execute_fetchall(
        """
        SELECT t.id AS token_id, a.*
        FROM tokens t JOIN accounts a ON a.id = t.account_id
        WHERE t.hash = ? AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > ?)
          AND a.disabled = 0 AND a.deleted_at IS NULL
        """,
        (token_hash, now),
    )
    row = next(iter(rows), None)
    if row is None:
        return None
    return row["token_id"], accounts.from_row(row)


async def everything(db: aiosqlite.Connection) -> list[Token]:
    return [_token(row) for row in await db.execute_fetchall(f"{_LIST} ORDER BY t.created_at, t.id")]


async def of_account(db: aiosqlite.Connection, account_id: str) -> list[Token]:
    rows = await db.execute_fetchall(f"{_LIST} WHERE t.account_id = ? ORDER BY t.created_at, t.id", (account_id,))
    return [_token(row) for row in rows]


async def by_id(db: aiosqlite.Connection, token_id: str) -> Token | None:
    rows = await db.execute_fetchall(f"{_LIST} WHERE t.id = ?", (token_id,))
    return next(map(_token, rows), None)


async def revoke(db: aiosqlite.Connection, token_id: str, now: int) -> None:
    await db.execute("UPDATE tokens SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, token_id))
