"""Manages the self-test's own account in the store: created for one run, then erased with all that refers to it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from appliance.domain import ids
from appliance.domain.entities import Account, Reason, Token
from appliance.domain.errors import HostError, StoreError
from appliance.ops import lock
from appliance.store import database
from appliance.store.known_time import clock_beside_server
from appliance.store.queries import accounts, node, selftest_accounts, sessions, tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractContextManager

    from appliance.domain.believed_clock import KeptClock
    from appliance.domain.tiers import Tier
    from appliance.store.database import Store
    from appliance.store.state_dir import StateDir

T = TypeVar("T")

TOKEN_LIFE_MS = 600_000  # ends a token that was not revoked because this process was killed
END_S = 10.0
POLL_S = 0.05
IN_MEMORY = Path(":memory:")  # a store without a file. https://www.sqlite.org/inmemorydb.html


class TemporaryAccount:
    """Creates and erases the self-test's account in the store.

    `as_owner`: acts as the store's owner, after a rehearsal of the work (file_owner.py).
    """

    def __init__(
        self,
        state: StateDir,
        clock: KeptClock,
        as_owner: Callable[[Path, Callable[[], object]], AbstractContextManager[None]],
    ) -> None:
        self._state = state
        self._clock = clock
        self._as_owner = as_owner

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lets one self-test run at a time.

        Raises HostError while another runs. Raises StoreError if there is no store.
        """
        if not self._state.store.exists():
            raise StoreError(f"no store at {self._state.store}: run wg-appliance serve, or name the right --config")
        running = "another self-test of this exit is running; try again when it has ended"
        with lock.locked(self._state.path, running):
            yield

    def open_account(self, tier: Tier) -> str:
        """Creates the account. Returns a token."""
        secret = ids.token_secret()

        async def work(store: Store) -> None:
            now = await self._now(store)
            account_id = ids.temporary_account_id()
            name = account_id.removeprefix("acc_").replace("_", "-")
            account = Account(account_id, name, tier, disabled=False, created_at=now)
            token = Token(ids.token_id(), name, tier, "self-test", now, now + TOKEN_LIFE_MS, None)
            async with store.write() as db:
                await accounts.insert(db, account)
                await tokens.insert(db, account, token, ids.token_hash(secret))

        self._run(work)
        return secret

    def clear(self) -> None:
        """Ends and erases what this run has made, and killed runs have left. Raises HostError if a session stays."""
        left = self._run(self._clear)
        if left:
            why = "has not ended" if self._state.is_served() else "ends when the server runs, which it does not:"
            raise HostError(f"the test's session {why} {', '.join(left)}; the next self-test erases it")

    async def _clear(self, store: Store) -> list[str]:
        async with store.read() as db:
            found = await selftest_accounts.everyone(db)
        if not found:
            return []
        now = await self._now(store)
        async with store.write() as db:
            for account in found:
                await accounts.delete(db, account.id, now)
                unfinished = await sessions.unfinished_of(db, account.id)
                await sessions.mark_closing(db, [s.id for s in unfinished], Reason.ADMIN)
            await node.request(db)
        left = await self._await_end(store, found)
        async with store.write() as db:
            for account in found:
                await selftest_accounts.erase(db, account.id)
        return left

    async def _now(self, store: Store) -> int:
        """Returns the wall clock time that the server goes by."""
        clock = await clock_beside_server(store, self._clock, self._state)
        return clock.now().wall_ms

    async def _await_end(self, store: Store, of: list[Account]) -> list[str]:
        """Returns the ids of sessions that the server has not ended in time."""
        deadline = asyncio.get_running_loop().time() + END_S
        while True:
            async with store.read() as db:
                left = [s.id for account in of for s in await sessions.unfinished_of(db, account.id)]
            if not left or not self._state.is_served() or asyncio.get_running_loop().time() > deadline:
                return left
            await asyncio.sleep(POLL_S)

    def _run(self, work: Callable[[Store], Awaitable[T]]) -> T:
        async def with_store() -> T:
            store = await database.Store.open(self._state.store, served=self._state.is_served)
            try:
                return await work(store)
            except sqlite3.DatabaseError as error:
                raise database.explain(error, self._state.store) from error
            finally:
                await store.close()

        with self._as_owner(self._state.path, lambda: asyncio.run(_rehearse())):
            return asyncio.run(with_store())


async def _rehearse() -> None:
    await (await database.Store.open(IN_MEMORY)).close()
