"""Queries bearer tokens, of which only the hashes are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain import ids
from appliance.domain.entities import Account, Token
from appliance.domain.tiers import Tier
from appliance.store.queries import accounts

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    import aiosqlite

IDS_LIKE = """
SELECT id FROM (SELECT id FROM tokens WHERE id >= :a AND id < :b LIMIT :most)
UNION SELECT id FROM (SELECT id FROM tokens WHERE id >= :c AND id < :d LIMIT :most)
LIMIT :most
"""
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


@dataclass(frozen=True, slots=True)
class Holder:
    """Holds a token's account and expiry; None: never expires."""

    account: Account
    expires_at: int | None


async def holder_of(db: aiosqlite.Connection, token_hash: bytes, now: int) -> Holder | None:
    """Returns the holder of a valid token: not revoked or expired, its account enabled. Otherwise None."""
    rows = await db.execute_fetchall(
        """
        SELECT t.expires_at, a.*
        FROM tokens t JOIN accounts a ON a.id = t.account_id
        WHERE t.hash = ? AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > ?)
          AND a.disabled = 0 AND a.deleted_at IS NULL
        """,
        (token_hash, now),
    )
    row = next(iter(rows), None)
    return None if row is None else Holder(accounts.from_row(row), row["expires_at"])


async def everything(db: aiosqlite.Connection) -> list[Token]:
    return [_token(row) for row in await db.execute_fetchall(f"{_LIST} ORDER BY t.created_at, t.id")]


async def of_account(db: aiosqlite.Connection, account_id: str) -> list[Token]:
    rows = await db.execute_fetchall(f"{_LIST} WHERE t.account_id = ? ORDER BY t.created_at, t.id", (account_id,))
    return [_token(row) for row in rows]


async def by_id(db: aiosqlite.Connection, token_id: str) -> Token | None:
    rows = await db.execute_fetchall(f"{_LIST} WHERE t.id = ?", (token_id,))
    return next(map(_token, rows), None)


async def ids_like(db: aiosqlite.Connection, start: str, most: int) -> list[str]:
    """Returns up to `most` ids that begin like this, with or without their prefix."""
    rows = await db.execute_fetchall(IDS_LIKE, ids.beginning(start, ids.TOKEN_ID_PREFIX) | {"most": most})
    return [row["id"] for row in rows]


@dataclass(frozen=True, slots=True)
class Permit:
    """Tells whether a session may be opened. `usable`: neither the account nor the token is disabled. `drained`: the
    exit takes no sessions. `token_id` None: the token is unknown."""

    token_id: str | None
    usable: bool
    drained: bool


async def permits(db: aiosqlite.Connection, asked: Sequence[tuple[str, bytes]]) -> list[Permit]:
    """Returns a permit for each (id of an account, hash of its token), in one statement."""
    rows = await db.execute_fetchall(
        f"""
        WITH asked (account_id, hash) AS (VALUES {", ".join(["(?, ?)"] * len(asked))})
        SELECT t.id, a.id IS NOT NULL AND t.revoked_at IS NULL AS usable, (SELECT drained FROM node) AS drained
        FROM asked
        LEFT JOIN accounts a ON a.id = asked.account_id AND a.disabled = 0 AND a.deleted_at IS NULL
        LEFT JOIN tokens t ON t.hash = asked.hash
        """,  # noqa: S608 (a placeholder for each)
        [value for pair in asked for value in pair],
    )
    return [Permit(row["id"], bool(row["usable"]), bool(row["drained"])) for row in rows]


async def revoke(db: aiosqlite.Connection, token_id: str, now: int) -> None:
    await db.execute("UPDATE tokens SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, token_id))
