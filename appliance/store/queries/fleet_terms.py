"""Queries the fleet's tiers and prices: the hub's own on the hub, a replica on the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import aiosqlite


async def read(db: aiosqlite.Connection) -> str | None:
    """Returns the terms as JSON; None: no hub has told any yet."""
    rows = await db.execute_fetchall("SELECT terms FROM fleet_terms")
    row = next(iter(rows), None)
    return None if row is None else str(row["terms"])


async def put(db: aiosqlite.Connection, terms: str) -> bool:
    """Stores the terms, if they are others than were stored. Returns whether they are."""
    rows = await db.execute_fetchall(
        """
        INSERT INTO fleet_terms (only_row, terms) VALUES (1, ?)
        ON CONFLICT (only_row) DO UPDATE SET terms = excluded.terms WHERE terms <> excluded.terms
        RETURNING only_row
        """,
        (terms,),
    )
    return bool(list(rows))
