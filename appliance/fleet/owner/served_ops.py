"""Remembers what was done for the operations of other exits: the same one again is answered as it was."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.domain.errors import PeerApplyFailed, StoreUnavailable
from appliance.store.queries import fleet_requests as rows
from appliance.store.queries.fleet_requests import ServedOp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import aiosqlite

    from appliance.domain.clock import Clock
    from appliance.store.database import Store

log = logging.getLogger(__name__)

PAUSE_S = 600.0
KEPT_MS = 3600 * 1000  # an operation of which nothing is live
AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class OpKey:
    """Names an operation: the exit that asks, and the number that it has given it."""

    sender: str
    op: str


@dataclass(slots=True)
class _InWork:
    """Holds what is being done for an operation: one thing at a time, and the opening that may be cancelled."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    task: asyncio.Task[bytes] | None = None
    waiting: int = 0


class ServedOps:
    """Does each operation once, also across restarts."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._in_work: dict[OpKey, _InWork] = {}

    async def once(self, key: OpKey, do: Callable[[], Awaitable[bytes]]) -> bytes:
        """Returns the answer to an operation: that of `do`, which notes it, or the one that was noted before.

        Raises PeerApplyFailed: if it was taken back. What it has begun goes on if the caller leaves.
        """
        work = self._of(key)
        if work.task is None or work.task.done():
            work.task = asyncio.create_task(self._do(key, work, do))
            work.task.add_done_callback(lambda _: self._drop_idle(key, work))
        try:
            return await asyncio.shield(work.task)
        except asyncio.CancelledError as error:
            if work.task.cancelled():  # taken back meanwhile
                raise PeerApplyFailed from error
            raise
        finally:
            self._leave(key, work)

    async def _do(self, key: OpKey, work: _InWork, do: Callable[[], Awaitable[bytes]]) -> bytes:
        async with work.lock:
            before = await self._served(key)
            if before is None:
                return await do()
            if before.answer is None:
                raise PeerApplyFailed
            return before.answer

    async def take_back(self, key: OpKey, undo: Callable[[ServedOp], Awaitable[None]]) -> None:
        """Stops what is being done for an operation, has `undo` undo what was, and refuses it from now on.

        Raises what `undo` does; to be asked again then. Raises StoreUnavailable.
        """
        work = self._of(key)
        try:
            if work.task is not None:
                work.task.cancel()
                await asyncio.wait((work.task,))
            async with work.lock:
                async with self._store.write() as db:
                    await rows.take_back(db, key.sender, key.op, self._clock.now().wall_ms)
                before = await self._served(key)
                if before is not None and before.made_id is not None:
                    await undo(before)
        finally:
            self._leave(key, work)

    async def note(self, db: aiosqlite.Connection, key: OpKey, made: ServedOp) -> None:
        """Notes what was made, in the caller's transaction."""
        await rows.serve(db, key.sender, key.op, made, self._clock.now().wall_ms)

    async def note_alone(self, key: OpKey, answer: bytes) -> bytes:
        """Notes the answer to an operation that can be asked again without harm, should this fail; returns it."""
        async with self._store.write() as db:
            await self.note(db, key, ServedOp(None, None, answer))
        return answer

    async def forget_old(self) -> int:
        """Deletes operations that no exit asks again or takes back; returns how many. Raises StoreUnavailable."""
        async with self._store.write() as db:
            return await rows.forget(db, self._clock.now().wall_ms - KEPT_MS, AT_ONCE)

    async def run(self) -> None:
        """Deletes old operations from time to time, until it is cancelled."""
        while True:
            try:
                more = await self.forget_old() == AT_ONCE
            except StoreUnavailable as error:
                log.info("old operations are not deleted: %s", error)
                more = False
            await asyncio.sleep(1.0 if more else PAUSE_S)

    async def _served(self, key: OpKey) -> ServedOp | None:
        async with self._store.read() as db:
            return await rows.served(db, key.sender, key.op)

    def _of(self, key: OpKey) -> _InWork:
        work = self._in_work.setdefault(key, _InWork())
        work.waiting += 1
        return work

    def _leave(self, key: OpKey, work: _InWork) -> None:
        work.waiting -= 1
        self._drop_idle(key, work)

    def _drop_idle(self, key: OpKey, work: _InWork) -> None:
        if work.task is not None and work.task.done() and not work.task.cancelled():
            work.task.exception()  # whoever has waited for it was told
        busy = work.task is not None and not work.task.done()
        if not work.waiting and not busy and self._in_work.get(key) is work:
            del self._in_work[key]
