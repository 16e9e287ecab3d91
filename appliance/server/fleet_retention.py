"""Takes away what a hub was told of other exits' sessions, once it is older than this host keeps its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.admission import LONGEST_SESSION_S
from appliance.store.queries import fleet_reports
from appliance.store.queries import fleet_retention as rows

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    import aiosqlite

    from appliance.store.database import Store

    Piece = Callable[[aiosqlite.Connection], Awaitable[None]]
    Write = Callable[[Piece, asyncio.Event], Awaitable[None]]

# Each holds the store's write lock for some milliseconds.
SESSIONS_A_PIECE = 50
LINES_A_PIECE = 50


class FleetRetention:
    """Looks only where the host is in a fleet, and so has the indexes. `write`: writes a piece, and lets others."""

    def __init__(self, store: Store, write: Write) -> None:
        self._store = store
        self._write = write

    async def forget_sessions(self, before: int, stopping: asyncio.Event) -> None:
        """Takes from their accounts' lists what ended before this instant: what began so much earlier has."""
        created = before - LONGEST_SESSION_S * 1000
        while not stopping.is_set():
            async with self._store.read() as db:
                due = await rows.created_before(db, created, SESSIONS_A_PIECE) if await _is_in_fleet(db) else []
            if not due:
                return

            async def piece(db: aiosqlite.Connection, due: list[rows.ToldSession] = due) -> None:
                await rows.forget_sessions(db, due)

            await self._write(piece, stopping)

    async def delete_lines(self, before: int, stopping: asyncio.Event) -> None:
        """Deletes the lines of sessions all of whose lines ended before this instant."""
        last = rows.FIRST
        while not stopping.is_set():
            async with self._store.read() as db:
                if not await _is_in_fleet(db):
                    return
                ended = await rows.lines_ended_before(db, before, last, LINES_A_PIECE)
                due = await rows.settled(db, [place.told for place in ended], before)
            if not ended:
                return
            last = ended[-1]

            async def piece(db: aiosqlite.Connection, due: list[rows.ToldSession] = due) -> None:
                await rows.delete_lines(db, due, before)

            if due:
                await self._write(piece, stopping)


async def _is_in_fleet(db: aiosqlite.Connection) -> bool:
    return await fleet_reports.is_noting(db)
