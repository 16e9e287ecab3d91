"""Deletes what has been kept for long enough, in pieces that hold the write lock for a moment each.

What is due is looked up without the lock. Each look-up reads a range of an index, so that the one that finds nothing
costs no more than the others, however much is kept.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import aiosqlite

ENDED_BEFORE = """
SELECT id FROM sessions WHERE state = 'terminated' AND terminated_at < :before ORDER BY terminated_at LIMIT :most
"""
LINES_ENDED_BEFORE = """
SELECT ended_at, session_id FROM invoice_lines
WHERE ended_at < :before AND (ended_at, session_id) > (:ended_at, :session_id)
ORDER BY ended_at, session_id LIMIT :most
"""
SETTLED = """
SELECT DISTINCT ended.value FROM json_each(:ids) ended
WHERE NOT EXISTS (SELECT 1 FROM invoice_lines l
    WHERE l.session_id = ended.value AND (l.ended_at IS NULL OR l.ended_at >= :before))
AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.id = ended.value AND s.state <> 'terminated')
"""
DELETE_UNBILLED_DAYS = """
DELETE FROM usage_days WHERE session_id IN (SELECT value FROM json_each(?))
AND NOT EXISTS (SELECT 1 FROM invoice_lines l WHERE l.session_id = usage_days.session_id)
"""
DELETE_SESSIONS = "DELETE FROM sessions WHERE id IN (SELECT value FROM json_each(?)) AND state = 'terminated'"
DELETE_DAYS = "DELETE FROM usage_days WHERE session_id IN (SELECT value FROM json_each(?))"
DELETE_LINES = "DELETE FROM invoice_lines WHERE session_id IN (SELECT value FROM json_each(?))"


class Place(NamedTuple):
    """Names a line in the order in which lines ended."""

    ended_at: int
    session_id: str


FIRST = Place(-1, "")


async def ended_before(db: aiosqlite.Connection, before: int, most: int) -> list[str]:
    """Returns the ids of up to `most` sessions that ended before this instant, those that ended first."""
    rows = await db.execute_fetchall(ENDED_BEFORE, {"before": before, "most": most})
    return [row[0] for row in rows]


async def lines_ended_before(db: aiosqlite.Connection, before: int, after: Place, most: int) -> list[Place]:
    """Returns the places of up to `most` invoice lines that ended before this instant, from one place on."""
    asked = {"before": before, "most": most, **after._asdict()}
    return [Place(*row) for row in await db.execute_fetchall(LINES_ENDED_BEFORE, asked)]


async def settled(db: aiosqlite.Connection, session_ids: Iterable[str], before: int) -> list[str]:
    """Returns those of the sessions all of whose invoice lines ended before this instant; no live one."""
    rows = await db.execute_fetchall(SETTLED, {"ids": json.dumps(list(session_ids)), "before": before})
    return [row[0] for row in rows]


async def delete_sessions(db: aiosqlite.Connection, session_ids: Sequence[str]) -> None:
    """Deletes ended sessions, and the daily totals of those without an invoice line."""
    ids = (json.dumps(session_ids),)
    await db.execute(DELETE_UNBILLED_DAYS, ids)
    await db.execute(DELETE_SESSIONS, ids)


async def delete_invoiced(db: aiosqlite.Connection, session_ids: Sequence[str], before: int) -> None:
    """Deletes all invoice lines of these sessions with all of their daily totals, if still settled.

    Both, or neither: a line is a difference of the session's running totals, and is verified by all days up to it.
    """
    ids = (json.dumps(await settled(db, session_ids, before)),)
    await db.execute(DELETE_DAYS, ids)
    await db.execute(DELETE_LINES, ids)
