"""What other processes commit is noticed: a tick is requested, and tokens are read again."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

import pytest

from appliance.server import watchers
from appliance.server.watchers import watch_store
from appliance.sessions.wakeup import Wakeup
from appliance.store.database import Store
from appliance.store.token_cache import Tokens
from tests.support.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SECONDS = 60.0


class ForgetfulTokens(Tokens):
    """Tells when it was made to forget."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, VirtualClock())
        self.forgot = asyncio.Event()

    def forget(self) -> None:
        super().forget()
        self.forgot.set()

    async def forget_again(self) -> None:
        self.forgot.clear()
        async with asyncio.timeout(SECONDS):
            await self.forgot.wait()


@asynccontextmanager
async def watched(path: Path) -> AsyncIterator[tuple[Store, ForgetfulTokens, Wakeup]]:
    store = await Store.open(path)
    tokens, wakeup, stopping = ForgetfulTokens(store), Wakeup(), asyncio.Event()
    watch = asyncio.ensure_future(watch_store(store, tokens, wakeup, stopping))
    try:
        await tokens.forget_again()  # at the first look
        yield store, tokens, wakeup
    finally:
        stopping.set()
        await watch
        await store.close()


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "STORE_POLL_S", 0.01)


def test_another_process_commits(tmp_path: Path) -> None:
    """Tokens are forgotten and a tick is requested; what the server commits itself does neither."""

    async def body() -> None:
        path = tmp_path / "store.sqlite"
        async with watched(path) as (store, tokens, wakeup):
            looked = asyncio.Event()
            version = store.foreign_version

            async def look() -> int:
                looked.set()
                return await version()

            store.foreign_version = look  # type: ignore[method-assign]  # tells that it was asked
            tokens.forgot.clear()
            for _ in range(3):
                async with store.write() as db:
                    await db.execute("UPDATE node SET drained = 1")
                looked.clear()
                async with asyncio.timeout(SECONDS):
                    await looked.wait()
            assert not tokens.forgot.is_set()
            with closing(sqlite3.connect(path)) as other, other:
                other.execute("UPDATE node SET drained = 0")
            await tokens.forget_again()
            async with asyncio.timeout(SECONDS):
                assert await wakeup.wait(lambda: SECONDS)

    asyncio.run(body())


def test_a_look_that_gets_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody can say what others have committed, tokens are forgotten over and over."""
    monkeypatch.setattr(watchers, "LOOK_S", 0.01)

    async def body() -> None:
        gate = threading.Event()
        async with watched(tmp_path / "store.sqlite") as (store, tokens, _):
            held = asyncio.ensure_future(store._writer._execute(gate.wait))
            try:
                for _ in range(3):
                    await tokens.forget_again()
            finally:
                gate.set()
                await held

    asyncio.run(body())
