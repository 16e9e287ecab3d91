"""Finds what a store has of a fleet, and erases it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiosqlite

from appliance.store.queries import escrow, fleet_changes, fleet_reports, fleet_state

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path


_CLOSE_WINDOWS = """
UPDATE accounts SET bytes_opened_at = NULL, bytes_used = 0, time_opened_at = NULL, time_used_ms = 0
"""


async def erase(db: aiosqlite.Connection) -> None:
    """Removes what the store has of the fleet; accounts and tokens stay, and are this host's own from now on."""
    await fleet_changes.ignore(db)
    await fleet_reports.end_reporting(db)
    await fleet_state.leave(db)
    await escrow.erase(db)


def node_of(db: sqlite3.Connection) -> str | None:
    """Returns the id under which the store's host is in a fleet; None: it is in none. Of a store of any schema."""
    if not _has_fleets(db):
        return None
    row = db.execute("SELECT node_id FROM fleet").fetchone()
    return None if row is None else str(row[0])


def make_another_node(store: Path) -> None:
    """Makes a store that no server uses, of any schema, a single host's, whose history another node has reported.

    What ended before stays, and is reported to no fleet under the new node's id: it would count twice. So would what
    accounts have used of their windows, which are closed.
    """
    asyncio.run(_make_another_node(store))


async def _make_another_node(store: Path) -> None:
    async with aiosqlite.connect(store) as db:
        found = await db.execute_fetchall("SELECT 1 FROM sqlite_schema WHERE name = 'fleet_intents'")
        if list(found):
            was_in_fleet = list(await db.execute_fetchall("SELECT 1 FROM fleet"))
            await erase(db)
            for table in ("fleet_ops", "fleet_intents"):
                await db.execute(f"DELETE FROM {table}")  # noqa: S608 (constants)
            if was_in_fleet:  # as if all that has ended had been noted: `begin_reporting` keeps the row
                await db.execute("INSERT INTO fleet_reporting (only_row, older_than) VALUES (1, 0)")
                await db.execute(_CLOSE_WINDOWS)
        await db.commit()


def _has_fleets(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'fleet'").fetchone() is not None
