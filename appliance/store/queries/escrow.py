"""Queries what an exit of a fleet is lent of its accounts' limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence
    from typing import Any

    import aiosqlite


class LentOfWindow(NamedTuple):
    """Holds what an exit was lent of a window, with the table's columns `bytes_...` or `time_...`."""

    opened: int
    granted: int
    had: int
    free: int
    others: int


class LentSessions(NamedTuple):
    """Holds how many sessions an exit may have at once, with the table's columns `live_...`."""

    held: int
    free: int
    others: int


class EscrowRow(NamedTuple):
    """Holds a row of the table."""

    account_id: str
    e: int
    q: int
    known: int
    traffic: LentOfWindow
    time: LentOfWindow
    live: LentSessions


_SELECT = """
SELECT account_id, e, q, known, bytes_opened, bytes_granted, bytes_had, bytes_free, bytes_others,
    time_opened, time_granted, time_had, time_free, time_others, live_held, live_free, live_others
FROM escrow
"""


def _from_row(row: Sequence[Any]) -> EscrowRow:
    account_id, e, q, known, *lent = row
    return EscrowRow(
        account_id, e, q, known, LentOfWindow(*lent[:5]), LentOfWindow(*lent[5:10]), LentSessions(*lent[10:])
    )


async def everything(db: aiosqlite.Connection) -> list[EscrowRow]:
    return [_from_row(row) for row in await db.execute_fetchall(_SELECT)]


async def of_account(db: aiosqlite.Connection, account_id: str) -> EscrowRow | None:
    rows = await db.execute_fetchall(f"{_SELECT} WHERE account_id = ?", (account_id,))
    return next((_from_row(row) for row in rows), None)


async def put(db: aiosqlite.Connection, rows: Iterable[EscrowRow]) -> None:
    """Stores rows, on a host that is in a fleet: a server may be storing some as a command takes it out."""
    await db.executemany(
        """
        INSERT OR REPLACE INTO escrow SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
        WHERE EXISTS (SELECT 1 FROM fleet)
        """,
        [(r.account_id, r.e, r.q, r.known, *r.traffic, *r.time, *r.live) for r in rows],
    )


async def delete_without_account(db: aiosqlite.Connection) -> None:
    """Deletes the rows of accounts that are there no more."""
    await db.execute("DELETE FROM escrow WHERE account_id NOT IN (SELECT id FROM accounts WHERE deleted_at IS NULL)")


async def erase(db: aiosqlite.Connection) -> None:
    """Deletes all rows, in a store of any schema."""
    if list(await db.execute_fetchall("SELECT 1 FROM sqlite_schema WHERE name = 'escrow'")):
        await db.execute("DELETE FROM escrow")


# Of a store that no server uses --------------------------------------------------------------------


def mark_restored(db: sqlite3.Connection) -> None:
    """Notes that the store went back in time: what it says was lent may have been given back since."""
    if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'escrow'").fetchone() is not None:
        db.execute(
            """
            UPDATE escrow SET e = e + 1, bytes_granted = 0, bytes_had = 0, time_granted = 0, time_had = 0, live_held = 0
            """
        )
