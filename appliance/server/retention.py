"""Deletes what has been kept for long enough, in the background: no request and no tick waits for more than a piece."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.domain.errors import StoreUnavailable
from appliance.server.fleet_retention import FleetRetention
from appliance.sessions.stopping import wait
from appliance.store import free_pages
from appliance.store.queries import devices
from appliance.store.queries import retention as rows

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    import aiosqlite

    from appliance.config.load import MeterSettings
    from appliance.config.plans import Terms
    from appliance.domain.clock import Clock
    from appliance.store.database import Store

    Piece = Callable[[aiosqlite.Connection], Awaitable[None]]

log = logging.getLogger(__name__)

SWEEP_S = 3600  # the longest between two sweeps
RETRY_S = 60  # after the store could not serve
PAUSE_S = 0.01  # the shortest between two pieces

# Each holds the store's write lock for some milliseconds.
SESSIONS_A_PIECE = 50
DEVICES_A_PIECE = 50
LINES_A_PIECE = 25  # with up to 31 daily totals each
PAGES_A_PIECE = 50


class Retention:
    """Deletes ended sessions after `meter.retention`, and removed devices with the last of theirs; invoices after
    `pricing.keep`. On a hub, what other exits have told of theirs goes likewise. Keeps no state of its own.

    What a stop or a crash leaves undone is still due at the next start.
    """

    def __init__(self, store: Store, terms: Terms, settings: MeterSettings, clock: Clock) -> None:
        self._store = store
        self._terms = terms
        self._retention_s = settings.retention
        self._clock = clock
        self._failing = False
        self._of_fleet = FleetRetention(store, self._write)

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweeps once an hour, or more often where something is kept for less, until `stopping`."""
        while not stopping.is_set():
            served = await self._try(stopping)
            await wait(stopping, self._period_s() if served else min(RETRY_S, self._period_s()))

    def _period_s(self) -> int:
        return min([SWEEP_S, *(kept for kept in (self._retention_s, self._terms.keep) if kept)])

    async def _try(self, stopping: asyncio.Event) -> bool:
        """Sweeps. Returns whether the store could serve."""
        try:
            await self.sweep(stopping)
        except StoreUnavailable as error:
            if not self._failing:
                log.warning("what is older than its retention is not deleted: %s: %s", error, error.__cause__)
            self._failing = True
            # On a full disk the pieces have filled the WAL: once they are in the file, its room serves again.
            with suppress(StoreUnavailable):
                await self._store.checkpoint()
            return False
        if self._failing:
            log.info("what is older than its retention is deleted again")
        self._failing = False
        return True

    async def sweep(self, stopping: asyncio.Event) -> None:
        """Deletes all that is due now, and gives the room back; ends early when `stopping`. Raises StoreUnavailable."""
        now = self._clock.now().wall_ms
        if self._retention_s:
            await self._delete_sessions(now - self._retention_s * 1000, stopping)
            await self._forget_devices(now - self._retention_s * 1000, stopping)
            await self._of_fleet.forget_sessions(now - self._retention_s * 1000, stopping)
        if self._terms.keep:
            await self._delete_invoiced(now - self._terms.keep * 1000, stopping)
            await self._of_fleet.delete_lines(now - self._terms.keep * 1000, stopping)
        await self._give_back(stopping)

    async def _delete_sessions(self, before: int, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            async with self._store.read() as db:
                due = await rows.ended_before(db, before, SESSIONS_A_PIECE)
            if not due:
                return

            async def piece(db: aiosqlite.Connection, due: list[str] = due) -> None:
                await rows.delete_sessions(db, due)

            await self._write(piece, stopping)

    async def _forget_devices(self, before: int, stopping: asyncio.Event) -> None:
        """Deletes the rows of removed devices whose last session has gone."""
        while not stopping.is_set():
            async with self._store.read() as db:
                due = await devices.removed_before(db, before, DEVICES_A_PIECE)
            if not due:
                return

            async def piece(db: aiosqlite.Connection, due: list[str] = due) -> None:
                await devices.forget(db, due)

            await self._write(piece, stopping)

    async def _delete_invoiced(self, before: int, stopping: asyncio.Event) -> None:
        last = rows.FIRST
        while not stopping.is_set():
            async with self._store.read() as db:
                ended = await rows.lines_ended_before(db, before, last, LINES_A_PIECE)
                due = await rows.settled(db, [place.session_id for place in ended], before)
            if not ended:
                return
            last = ended[-1]

            async def piece(db: aiosqlite.Connection, due: list[str] = due) -> None:
                await rows.delete_invoiced(db, due, before)

            if due:
                await self._write(piece, stopping)

    async def _give_back(self, stopping: asyncio.Event) -> None:
        given_back = False
        while not stopping.is_set():
            async with self._store.read() as db:
                free = await free_pages.count(db)
            if not free:
                break

            given_back = True
            began = time.monotonic()
            await self._store.give_back(PAGES_A_PIECE)
            await self._leave_to_others(began, stopping)
        if given_back:
            await self._store.checkpoint()

    async def _write(self, piece: Piece, stopping: asyncio.Event) -> None:
        began = time.monotonic()
        async with self._store.write() as db:
            await piece(db)
        await self._leave_to_others(began, stopping)

    @staticmethod
    async def _leave_to_others(began: float, stopping: asyncio.Event) -> None:
        """Waits for as long as a piece took that began then."""
        await wait(stopping, max(PAUSE_S, time.monotonic() - began))
