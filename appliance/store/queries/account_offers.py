"""Reads what a joining host brings along of its accounts, and takes it in on the hub."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from appliance.domain.ids import TEMPORARY_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import aiosqlite

Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Instant = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class OfferedToken(msgspec.Struct, frozen=True, array_like=True):
    """Describes a token that is good on the joining host."""

    id: Annotated[str, msgspec.Meta(pattern="^tok_[0-9a-z_]{1,64}$")]
    hash: Hash
    label: Annotated[str, msgspec.Meta(max_length=256)]
    created_at: Instant
    expires_at: Instant | None


class OfferedAccount(msgspec.Struct, frozen=True, array_like=True):
    """Describes an account of the joining host. `used`: it has had a session or a device there."""

    id: Annotated[str, msgspec.Meta(pattern="^acc_(?!selftest_)[0-9a-z_]{1,64}$")]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    tier: Literal["anonymous", "free", "paid"]
    disabled: bool
    created_at: Instant
    used: bool
    tokens: tuple[OfferedToken, ...] = ()


async def read(db: aiosqlite.Connection, now: int) -> list[OfferedAccount]:
    """Returns this host's accounts, and their tokens that are good now; none of self-tests."""
    tokens = dict[str, list[OfferedToken]]()
    for row in await db.execute_fetchall(
        """
        SELECT account_id, id, hash, label, created_at, expires_at FROM tokens
        WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?) ORDER BY id
        """,
        (now,),
    ):
        token = OfferedToken(row["id"], row["hash"], row["label"], row["created_at"], row["expires_at"])
        tokens.setdefault(row["account_id"], []).append(token)
    rows = await db.execute_fetchall(
        """
        SELECT id, name, tier, disabled, created_at, EXISTS (SELECT 1 FROM sessions WHERE account_id = a.id)
            OR EXISTS (SELECT 1 FROM devices WHERE account_id = a.id) AS used
        FROM accounts a WHERE deleted_at IS NULL AND substr(id, 1, ?) <> ? ORDER BY name
        """,
        (len(TEMPORARY_PREFIX), TEMPORARY_PREFIX),
    )
    return [
        OfferedAccount(
            *(row["id"], row["name"], row["tier"], bool(row["disabled"]), row["created_at"], bool(row["used"])),
            tokens=tuple(tokens.get(row["id"], ())),
        )
        for row in rows
    ]


async def names_taken(db: aiosqlite.Connection, names: Iterable[str]) -> dict[str, str]:
    """Returns the ids of accounts that have these names, by name."""
    rows = await db.execute_fetchall(
        "SELECT name, id FROM accounts WHERE deleted_at IS NULL AND name IN (SELECT value FROM json_each(?))",
        (json.dumps(list(names)),),
    )
    return {row["name"]: row["id"] for row in rows}


async def known(db: aiosqlite.Connection, ids: Iterable[str]) -> set[str]:
    """Returns those of the ids that an account has, or had."""
    rows = await db.execute_fetchall(
        "SELECT id FROM accounts WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(list(ids)),)
    )
    return {row["id"] for row in rows}


async def take_in(db: aiosqlite.Connection, accounts: Sequence[OfferedAccount]) -> None:
    """Inserts accounts, which are new here, and their tokens, unless there is one of the same id or hash."""
    await db.executemany(
        "INSERT INTO accounts (id, name, tier, disabled, created_at) VALUES (?, ?, ?, ?, ?)",
        [(a.id, a.name, a.tier, a.disabled, a.created_at) for a in accounts],
    )
    await db.executemany(
        """
        INSERT OR IGNORE INTO tokens (id, account_id, hash, label, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)
        """,
        [(t.id, a.id, t.hash, t.label, t.created_at, t.expires_at) for a in accounts for t in a.tokens],
    )
