"""Queries which sessions have used something since they were reported, and notes them (see fleet_reports).

Also up to when all use is counted: that of later moments is not in the store yet.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from appliance.store.queries import node as node_row

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
# Of a session that can carry, time is stored later than it passes. One that is being opened began at `created_at`.
_UNCOUNTED = """
SELECT p.counted_boot_id, min(p.counted_until_ms) FROM sessions s JOIN peers p ON p.address_offset = s.address_offset
WHERE s.state IN ('live', 'closing') AND s.state <> 'terminated' AND p.carries_until_ms > p.counted_until_ms
GROUP BY p.counted_boot_id
"""
_OPENING = "SELECT min(created_at) FROM sessions WHERE state = 'pending' AND state <> 'terminated'"


async def found(db: aiosqlite.Connection) -> list[str]:
    """Returns the sessions that have used something since they were reported."""
    return [row[0] for row in await db.execute_fetchall(_MOVED)]


async def note(db: aiosqlite.Connection, session_ids: Sequence[str]) -> None:
    """Notes that there is something to be told of these, unless that is noted already."""
    among = "session_id IN (SELECT value FROM json_each(?))"
    await db.execute(f"UPDATE fleet_reports SET v = v + 1 WHERE v <= sent AND {among}", (json.dumps(session_ids),))  # noqa: S608


async def counted_until(db: aiosqlite.Connection) -> int | None:
    """Returns the instant (wall clock, ms) before which all use of all sessions is counted. In one snapshot.

    None: it is not known, as before the first tick after a reboot.
    """
    beat = (await node_row.read(db)).heartbeat
    if not beat.boot_id:
        return None
    instants = [beat.wall_ms]
    for boot_id, counted_ms in await db.execute_fetchall(_UNCOUNTED):
        if boot_id != beat.boot_id:
            return None
        instants.append(beat.wall_ms - (beat.boot_ms - counted_ms))
    instants += [row[0] for row in await db.execute_fetchall(_OPENING) if row[0] is not None]
    return min(instants)
