"""Queries which sessions have used something since they were reported, and notes them (see fleet_reports)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiosqlite

_MOVED = """
SELECT s.id FROM sessions s
JOIN peers p ON p.address_offset = s.address_offset
JOIN fleet_reports r ON r.session_id = s.id
WHERE s.state IN ('live', 'closing') AND s.state <> 'terminated' AND r.v <= r.sent
    AND (p.bytes_in <> r.bytes_in OR p.bytes_out <> r.bytes_out OR p.counted_ms <> r.counted_ms)
"""


async def found(db: aiosqlite.Connection) -> list[str]:
    """Returns the sessions that have used something since they were reported."""
    return [row[0] for row in await db.execute_fetchall(_MOVED)]


async def note(db: aiosqlite.Connection, session_ids: Sequence[str]) -> None:
    """Notes that there is something to be told of these, unless that is noted already."""
    among = "session_id IN (SELECT value FROM json_each(?))"
    await db.execute(f"UPDATE fleet_reports SET v = v + 1 WHERE v <= sent AND {among}", (json.dumps(session_ids),))  # noqa: S608
