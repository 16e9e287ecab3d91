"""Queries the accounts that a host has of its own when it joins a fleet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from appliance.domain.ids import TEMPORARY_PREFIX

if TYPE_CHECKING:
    from collections.abc import Collection

    import aiosqlite

_HAS_HISTORY = """
    (EXISTS (SELECT 1 FROM sessions WHERE account_id = a.id) OR EXISTS (SELECT 1 FROM devices WHERE account_id = a.id))
"""


async def names(db: aiosqlite.Connection, *, with_history: bool) -> tuple[str, ...]:
    """Returns the names of the accounts that have, or have not, had a session or a device."""
    rows = await db.execute_fetchall(
        f"""
        SELECT name FROM accounts a
        WHERE deleted_at IS NULL AND substr(id, 1, ?) <> ? AND {_HAS_HISTORY} = ? ORDER BY name
        """,  # noqa: S608 (a constant)
        (len(TEMPORARY_PREFIX), TEMPORARY_PREFIX, with_history),
    )
    return tuple(row["name"] for row in rows)


async def drop(db: aiosqlite.Connection, among: Collection[str]) -> tuple[str, ...]:
    """Deletes accounts of these names with their tokens, if they have no history still. Returns their names."""
    unused = f"""
        SELECT a.id FROM accounts a
        WHERE a.deleted_at IS NULL AND a.name IN (SELECT value FROM json_each(?)) AND NOT {_HAS_HISTORY}
    """  # noqa: S608 (a constant)
    chosen = (json.dumps(list(among)),)
    await db.execute(f"DELETE FROM tokens WHERE account_id IN ({unused})", chosen)  # noqa: S608 (a constant)
    rows = await db.execute_fetchall(f"DELETE FROM accounts WHERE id IN ({unused}) RETURNING name", chosen)  # noqa: S608
    return tuple(sorted(row["name"] for row in rows))


async def rename(db: aiosqlite.Connection, among: Collection[str], suffix: str) -> None:
    """Adds a suffix to these names. Raises sqlite3.IntegrityError if another account has one of the new ones."""
    await db.execute(
        "UPDATE accounts SET name = name || ? WHERE deleted_at IS NULL AND name IN (SELECT value FROM json_each(?))",
        (suffix, json.dumps(list(among))),
    )
