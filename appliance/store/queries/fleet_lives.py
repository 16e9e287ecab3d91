"""Queries the lives of peers' counters: in one boot, on one interface, until the peer is removed. See reports.epochs.

Triggers keep the last counters of each, in a fleet alone. The one that a session begins with has no mark, so that to
open a session costs nothing here; each that begins later has a random one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import aiosqlite

# The life that is over with the session has the number 1000000, as an end may be taken back.
TRIGGERS = {
    # Its peer is dropped after this, or becomes another session's.
    "fleet_session_ended": """
        AFTER UPDATE OF state ON sessions WHEN NEW.state = 'terminated' AND OLD.state <> 'terminated' BEGIN
            INSERT INTO fleet_lives
            SELECT NEW.id, 1000000, coalesce(baseline_boot_id, counted_boot_id), ifindex, rx_bytes, tx_bytes,
                coalesce((SELECT life FROM fleet_reports WHERE session_id = NEW.id), '')
            FROM peers WHERE address_offset = NEW.address_offset AND ifindex IS NOT NULL;
        END""",
    "fleet_session_brought_back": """
        AFTER UPDATE OF state ON sessions WHEN OLD.state = 'terminated' AND NEW.state <> 'terminated' BEGIN
            DELETE FROM fleet_lives WHERE session_id = NEW.id AND number = 1000000;
            UPDATE fleet_reports SET life = lower(hex(randomblob(8))) WHERE session_id = NEW.id AND NOT EXISTS (
                SELECT 1 FROM peers WHERE address_offset = NEW.address_offset AND ifindex IS NOT NULL);
        END""",
    # Where its baseline is forgotten, `begin` names the next.
    "fleet_life_ended": """
        AFTER UPDATE ON peers WHEN OLD.ifindex IS NOT NULL AND (NEW.ifindex IS NOT OLD.ifindex
            OR NEW.rx_bytes < OLD.rx_bytes OR NEW.tx_bytes < OLD.tx_bytes
            OR coalesce(NEW.baseline_boot_id, NEW.counted_boot_id)
                <> coalesce(OLD.baseline_boot_id, OLD.counted_boot_id)) BEGIN
            INSERT INTO fleet_lives
            SELECT s.id, (SELECT coalesce(max(number), 0) + 1 FROM fleet_lives WHERE session_id = s.id),
                coalesce(OLD.baseline_boot_id, OLD.counted_boot_id), OLD.ifindex, OLD.rx_bytes, OLD.tx_bytes,
                coalesce((SELECT life FROM fleet_reports WHERE session_id = s.id), '')
            FROM sessions s WHERE s.address_offset = OLD.address_offset AND s.state IN ('live', 'closing');
            UPDATE fleet_reports SET life = lower(hex(randomblob(8))) WHERE NEW.ifindex IS NOT NULL AND session_id IN (
                SELECT id FROM sessions WHERE address_offset = OLD.address_offset AND state IN ('live', 'closing'));
        END""",
}
_LIVES = """
SELECT session_id, boot_id, ifindex, rx_bytes, tx_bytes, mark FROM (
    SELECT l.session_id, l.number, l.boot_id, l.ifindex, l.rx_bytes, l.tx_bytes, l.mark
    FROM fleet_lives l WHERE l.session_id IN (SELECT value FROM json_each(?1))
    UNION ALL
    SELECT s.id, 999999, coalesce(p.baseline_boot_id, p.counted_boot_id), p.ifindex, p.rx_bytes, p.tx_bytes,
        coalesce((SELECT life FROM fleet_reports WHERE session_id = s.id), '')
    FROM sessions s JOIN peers p ON p.address_offset = s.address_offset
    WHERE s.id IN (SELECT value FROM json_each(?1)) AND s.state IN ('live', 'closing') AND p.ifindex IS NOT NULL
) ORDER BY session_id, number
"""
_BEGIN = """
UPDATE fleet_reports SET life = lower(hex(randomblob(8)))
WHERE EXISTS (SELECT 1 FROM fleet_reporting) AND session_id IN (SELECT value FROM json_each(?))
"""
_OTHERS = """
SELECT s.id, s.address_offset, m.value AS life FROM json_each(?) m
JOIN sessions s ON s.id = m.key JOIN fleet_reports r ON r.session_id = s.id
WHERE s.state IN ('live', 'closing') AND r.life <> m.value
"""


class LifeRow(NamedTuple):
    """Holds the last counters of one life."""

    boot_id: str
    ifindex: int
    rx_bytes: int
    tx_bytes: int
    mark: str


async def of_sessions(db: aiosqlite.Connection, session_ids: Sequence[str]) -> dict[str, list[LifeRow]]:
    """Returns each life of these sessions' peers, oldest first."""
    found: dict[str, list[LifeRow]] = {session_id: [] for session_id in session_ids}
    for session_id, *life in await db.execute_fetchall(_LIVES, (json.dumps(session_ids),)):
        found[session_id].append(LifeRow(*life))
    return found


async def begin(db: aiosqlite.Connection, session_ids: Iterable[str]) -> None:
    """Names the lives that begin as the peers of these sessions are put again. Writes nothing outside a fleet."""
    await db.execute(_BEGIN, (json.dumps(list(session_ids)),))


async def take_over(db: aiosqlite.Connection, marks: Mapping[str, str]) -> int:
    """Ends what the store has for the present life of sessions (by id) whose peers are in another one.

    Nothing of that one is counted yet. Returns how many there were. What has been read of baselines before is no longer
    true.
    """
    others = list(await db.execute_fetchall(_OTHERS, (json.dumps(dict(marks)),)))
    await db.executemany(
        """
        UPDATE peers SET ifindex = NULL, rx_bytes = NULL, tx_bytes = NULL, baseline_boot_id = NULL
        WHERE address_offset = ?
        """,
        [(row["address_offset"],) for row in others],
    )
    await db.executemany(
        "UPDATE fleet_reports SET life = ? WHERE session_id = ?", [(row["life"], row["id"]) for row in others]
    )
    return len(others)


async def unfinished(db: aiosqlite.Connection, session_ids: Iterable[str]) -> set[str]:
    """Returns those of the sessions that have a peer."""
    sql = "SELECT id FROM sessions WHERE id IN (SELECT value FROM json_each(?)) AND state IN ('live', 'closing')"
    return {row["id"] for row in await db.execute_fetchall(sql, (json.dumps(list(session_ids)),))}
