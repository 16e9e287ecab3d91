"""Whose a token is, asked of the store once and then of memory."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from appliance.domain.entities import Account, Token
from appliance.domain.tiers import Tier
from appliance.server.watchers import watch_store
from appliance.sessions.wakeup import Wakeup
from appliance.store import token_cache
from appliance.store.database import Store
from appliance.store.queries import accounts
from appliance.store.queries import tokens as rows
from appliance.store.token_cache import Tokens
from tests.support.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    import aiosqlite
    import pytest

ADA = Account("acc_1", "ada", Tier.FREE, False, 0)
HASH, UNKNOWN = b"\x01" * 32, b"\x02" * 32
EXPIRES = 5_000


class CountedStore(Store):
    """Counts who reads."""

    reads = 0

    @asynccontextmanager
    async def read(self) -> AsyncIterator[aiosqlite.Connection]:
        self.reads += 1
        async with super().read() as db:
            yield db


def with_tokens(path: Path, body: Callable[[CountedStore, VirtualClock, Tokens], Awaitable[None]]) -> None:
    """On a store where ADA's HASH counts until EXPIRES."""

    async def story() -> None:
        store, clock = await CountedStore.open(path / "store.sqlite"), VirtualClock(wall_ms=0)
        try:
            async with store.write() as db:
                await accounts.insert(db, ADA)
            await add(store, HASH)
            await body(store, clock, Tokens(store, clock))
        finally:
            await store.close()

    asyncio.run(story())


async def add(store: Store, token_hash: bytes) -> None:
    token = Token(f"tok_{token_hash.hex()}", ADA.name, ADA.tier, "", 0, EXPIRES, None)
    async with store.write() as db:
        await rows.insert(db, ADA, token, token_hash)


async def revoke(store: Store) -> None:
    async with store.write() as db:
        await rows.revoke(db, f"tok_{HASH.hex()}", 1)


def test_a_token_is_read_from_the_store_once(tmp_path: Path) -> None:
    """A token that counts is read once, and again when it may have changed."""

    async def body(store: CountedStore, _: VirtualClock, known: Tokens) -> None:
        for _ in range(3):
            assert await known.account_of(HASH) == ADA
        assert store.reads == 1
        await revoke(store)
        known.forget()
        assert await known.account_of(HASH) is None
        assert store.reads == 2

    with_tokens(tmp_path, body)


def test_an_unwatched_store_is_asked_each_time(tmp_path: Path) -> None:
    """While nobody would notice that a token is revoked, the store is asked each time."""

    async def body(store: CountedStore, _: VirtualClock, known: Tokens) -> None:
        stopping = asyncio.Event()
        stopping.set()
        await watch_store(store, known, Wakeup(), stopping)
        for _ in range(2):
            assert await known.account_of(HASH) == ADA
        await revoke(store)
        assert await known.account_of(HASH) is None
        assert store.reads == 3

    with_tokens(tmp_path, body)


def test_unknown_is_not_remembered(tmp_path: Path) -> None:
    """A token that is made after it was refused works at once."""

    async def body(store: CountedStore, _: VirtualClock, known: Tokens) -> None:
        assert await known.account_of(UNKNOWN) is None
        await add(store, UNKNOWN)
        assert await known.account_of(UNKNOWN) == ADA

    with_tokens(tmp_path, body)


def test_a_remembered_token_expires_to_the_millisecond(tmp_path: Path) -> None:
    """A token that is remembered counts up to its last millisecond and not in the next."""

    async def body(_: CountedStore, clock: VirtualClock, known: Tokens) -> None:
        assert await known.account_of(HASH) == ADA
        clock.wall_ms = EXPIRES - 1
        assert await known.account_of(HASH) == ADA
        clock.wall_ms = EXPIRES
        assert await known.account_of(HASH) is None

    with_tokens(tmp_path, body)


def test_read_before_it_was_to_be_forgotten(tmp_path: Path) -> None:
    """What was read before a change, and arrives after it, is not remembered."""

    async def body(store: CountedStore, _: VirtualClock, known: Tokens) -> None:
        read = store.read

        @asynccontextmanager
        async def slow() -> AsyncIterator[aiosqlite.Connection]:
            async with read() as db:
                yield db
            await revoke(store)
            known.forget()

        store.read = slow  # type: ignore[method-assign]  # the change comes in between
        assert await known.account_of(HASH) == ADA
        store.read = read  # type: ignore[method-assign]  # as it was
        assert await known.account_of(HASH) is None

    with_tokens(tmp_path, body)


def test_the_oldest_token_is_forgotten_when_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more are remembered than there is room for; the oldest goes."""
    monkeypatch.setattr(token_cache, "MOST_KNOWN", 2)

    async def body(store: CountedStore, _: VirtualClock, known: Tokens) -> None:
        hashes = [bytes([n]) * 32 for n in range(10, 13)]
        for each in hashes:
            await add(store, each)
            assert await known.account_of(each) == ADA
        before = store.reads
        for each in (*hashes[1:], *hashes[1:]):
            assert await known.account_of(each) == ADA
        assert store.reads == before
        assert await known.account_of(hashes[0]) == ADA
        assert store.reads == before + 1

    with_tokens(tmp_path, body)
