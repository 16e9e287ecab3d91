"""The accounts that a host has of its own when it joins a fleet: what it never used makes way, the rest is kept."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

import pytest

from appliance.domain.entities import Account
from appliance.domain.tiers import Tier
from appliance.store.database import Store
from appliance.store.queries import accounts, own_accounts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import aiosqlite

SESSION = """
INSERT INTO sessions (id, account_id, tier, region, public_ip, public_key, address_offset, ipv6, state, created_at,
    expires_at, quiet_since_ms, quiet_boot_id, reason, terminated_at)
VALUES ('ses_1', 'acc_ada', 'free', 'fra', '192.0.2.1', zeroblob(32), 2, 0, 'terminated', 1, 2, 0, '', 'closed', 2)
"""


def on_a_store(path: Path, body: Callable[[aiosqlite.Connection], Awaitable[None]]) -> None:
    """With accounts: ada has had a session, owner and eve have tokens, bob has been deleted."""

    async def story() -> None:
        store = await Store.open(path / "store.sqlite")
        try:
            async with store.write() as db:
                for name in ("ada", "owner", "eve", "bob"):
                    await accounts.insert(db, Account(f"acc_{name}", name, Tier.FREE, False, 1))
                    await db.execute(
                        "INSERT INTO tokens (id, account_id, hash, created_at) VALUES (?, ?, ?, 1)",
                        (f"tok_{name}", f"acc_{name}", name.encode().ljust(32)),
                    )
                await accounts.insert(db, Account("acc_selftest_1", "selftest", Tier.FREE, False, 1))
                await db.execute("UPDATE accounts SET deleted_at = 2 WHERE name = 'bob'")
                await db.execute(SESSION)
                await body(db)
        finally:
            await store.close()

    asyncio.run(story())


def test_used_and_unused_accounts_are_told_apart(tmp_path: Path) -> None:
    """A session that has ended is a history. Accounts of self-tests and deleted ones are neither."""

    async def body(db: aiosqlite.Connection) -> None:
        assert await own_accounts.names(db, with_history=True) == ("ada",)
        assert await own_accounts.names(db, with_history=False) == ("eve", "owner")

    on_a_store(tmp_path, body)


def test_only_unused_accounts_are_dropped(tmp_path: Path) -> None:
    """With their tokens. One that got a session since it was asked about is kept."""

    async def body(db: aiosqlite.Connection) -> None:
        assert await own_accounts.drop(db, ["owner", "ada", "nobody"]) == ("owner",)
        left = {row["name"] for row in await db.execute_fetchall("SELECT name FROM accounts WHERE deleted_at IS NULL")}
        tokens = {row["id"] for row in await db.execute_fetchall("SELECT id FROM tokens")}
        assert (left, tokens) == ({"ada", "eve", "selftest"}, {"tok_ada", "tok_eve", "tok_bob"})

    on_a_store(tmp_path, body)


def test_accounts_get_another_name(tmp_path: Path) -> None:
    """All of those that are asked for, or an error that changes nothing."""

    async def body(db: aiosqlite.Connection) -> None:
        await own_accounts.rename(db, ["ada", "bob"], "-ams")
        assert await own_accounts.names(db, with_history=True) == ("ada-ams",)
        await db.execute("UPDATE accounts SET name = 'eve-x' WHERE name = 'owner'")
        with pytest.raises(sqlite3.IntegrityError):
            await own_accounts.rename(db, ["eve"], "-x")

    on_a_store(tmp_path, body)
