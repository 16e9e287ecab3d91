"""Queries what an exit of a fleet reports of its sessions, and what of it the hub has acknowledged.

Triggers note what begins and ends. They are there in a fleet alone, so that an exit by itself pays nothing; nor does a
tick in a fleet, but for what begins or ends in it: what moved is noted by `fleet_moved`, for a minute's ticks at once.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from appliance.domain.charges import month_bounds
from appliance.store.queries import fleet_lives

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    import aiosqlite

# For lists of several exits' sessions and for what a hub keeps of them: a single host pays for no further index.
INDEXES = {
    "sessions_by_time": "sessions (account_id, created_at, id)",
    "fleet_sessions_of_account": "fleet_sessions (account_id, node, created_at, session_id)",
    "fleet_sessions_shown": "fleet_sessions (created_at) WHERE account_id <> ''",
    "fleet_lines_by_end": "fleet_lines (ended_at, session_id, node)",
    "fleet_sessions_live": "fleet_sessions (account_id, node, created_at, session_id) WHERE state = 'live'",
}
TRIGGERS = {
    "fleet_session_opened": """
        AFTER INSERT ON sessions WHEN NEW.state <> 'pending' BEGIN
            INSERT INTO fleet_reports (session_id, created_at) VALUES (NEW.id, NEW.created_at)
            ON CONFLICT DO UPDATE SET v = v + 1, urgent = 1;
        END""",
    "fleet_session_changed": """
        AFTER UPDATE OF state, reason, terminated_at ON sessions WHEN NEW.state <> 'pending' BEGIN
            INSERT INTO fleet_reports (session_id, created_at) VALUES (NEW.id, NEW.created_at)
            ON CONFLICT DO UPDATE SET v = v + 1, urgent = 1;
        END""",
    "fleet_session_deleted": """
        AFTER DELETE ON sessions BEGIN
            UPDATE fleet_reports SET gone = 1, urgent = 1, v = v + (OLD.state <> 'terminated')
            WHERE session_id = OLD.id;
            DELETE FROM fleet_lives WHERE session_id = OLD.id;
        END""",
    **fleet_lives.TRIGGERS,
}
_REPORT = """
SELECT session_id, created_at, v, sent, sent_bytes, gone, turn, epoch, basis, bytes_in, bytes_out, counted_ms, until_ms,
    until_boot_id
FROM fleet_reports
"""


class ReportRow(NamedTuple):
    """Holds a row of fleet_reports: what is to be told of a session, and what was told of it last."""

    session_id: str
    created_at: int
    v: int
    sent: int
    sent_bytes: int
    gone: int
    turn: int
    epoch: str
    basis: str | None
    bytes_in: int
    bytes_out: int
    counted_ms: int
    until_ms: int
    until_boot_id: str


class ReportingState(NamedTuple):
    """Holds the last batch of reports. `restored`: from a backup, so that the hub may have been told what it lacks.

    `acknowledged`: the last batch of which the hub has acknowledged a report. What it has of later ones may be of a
    store that went back.
    """

    batch: int
    mark: str
    restored: int
    older_than: int
    acknowledged: int


class MonthSums(Struct, frozen=True):
    """Sums reports of the sessions that were created in one month (UTC)."""

    sessions: int = 0
    sum_v: int = 0
    sum_bytes: int = 0


# Coming into a fleet, and leaving it ---------------------------------------------------------------


async def begin_reporting(db: aiosqlite.Connection) -> bool:
    """Makes triggers and indexes, and notes the sessions that have not ended; `note_older` notes those that have.

    Returns False if they are noted already.
    """
    anew = not await is_noting(db)
    for name, columns in INDEXES.items():
        await db.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {columns}")
    for name, trigger in TRIGGERS.items():
        await db.execute(f"CREATE TRIGGER IF NOT EXISTS {name} {trigger}")
    await db.execute(
        """
        INSERT INTO fleet_reporting (only_row, older_than)
        SELECT 1, coalesce(max(number), 0) + 1 FROM sessions WHERE true ON CONFLICT DO NOTHING
        """
    )
    await db.execute(
        """
        INSERT INTO fleet_reports (session_id, created_at)
        SELECT id, created_at FROM sessions WHERE state IN ('live', 'closing') AND state <> 'terminated'
        ON CONFLICT DO NOTHING
        """
    )
    return anew


async def is_noting(db: aiosqlite.Connection) -> bool:
    """Tells whether sessions are noted as they begin and end: the host is in a fleet."""
    asked = "SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND name = 'fleet_session_opened'"
    return bool(await db.execute_fetchall(asked))


async def end_reporting(db: aiosqlite.Connection) -> None:
    """Drops the triggers, the indexes and all that was noted."""
    for name in INDEXES:
        await db.execute(f"DROP INDEX IF EXISTS {name}")
    for name in TRIGGERS:
        await db.execute(f"DROP TRIGGER IF EXISTS {name}")
    for table in ("fleet_reports", "fleet_lives", "fleet_report_months", "fleet_reporting"):
        await db.execute(f"DELETE FROM {table}")  # noqa: S608 (names from above)


async def note_older(db: aiosqlite.Connection, most: int) -> int:
    """Notes up to `most` sessions that ended before the exit came into the fleet, newest first. Returns how many."""
    rows = list(
        await db.execute_fetchall(
            """
            SELECT number, id, created_at FROM sessions WHERE number < (SELECT older_than FROM fleet_reporting)
            ORDER BY number DESC LIMIT ?
            """,
            (most,),
        )
    )
    await db.executemany(
        """
        INSERT INTO fleet_reports (session_id, created_at, urgent) SELECT ?1, ?2, 0
        WHERE EXISTS (SELECT 1 FROM sessions WHERE id = ?1 AND state <> 'pending') ON CONFLICT DO NOTHING
        """,
        [(row["id"], row["created_at"]) for row in rows],
    )
    await db.execute("UPDATE fleet_reporting SET older_than = ?", (rows[-1]["number"] if rows else 0,))
    return len(rows)


# Reporting -----------------------------------------------------------------------------------------


async def state(db: aiosqlite.Connection) -> ReportingState | None:
    """Returns None outside a fleet."""
    rows = await db.execute_fetchall("SELECT batch, mark, restored, older_than, acknowledged FROM fleet_reporting")
    return next((ReportingState(*row) for row in rows), None)


async def put_batch(db: aiosqlite.Connection, number: int, mark: str) -> None:
    """Notes the batch that is about to be sent. The store no longer counts as restored."""
    await db.execute("UPDATE fleet_reporting SET batch = ?, mark = ?, restored = 0", (number, mark))


async def put_acknowledged(db: aiosqlite.Connection, batch: int) -> None:
    """Notes that the hub has acknowledged reports of this batch, or that what it had up to it is taken over."""
    await db.execute("UPDATE fleet_reporting SET acknowledged = max(acknowledged, ?)", (batch,))


async def unsent(db: aiosqlite.Connection, most: int) -> list[ReportRow]:
    """Returns up to `most` sessions of which there is something to be told, beginnings and ends first."""
    rows = await db.execute_fetchall(f"{_REPORT} WHERE v > sent ORDER BY urgent DESC LIMIT ?", (most,))
    return [ReportRow(*row) for row in rows]


async def is_any_unsent(db: aiosqlite.Connection) -> bool:
    return bool(list(await db.execute_fetchall("SELECT 1 FROM fleet_reports WHERE v > sent LIMIT 1")))


async def count_unsent(db: aiosqlite.Connection) -> int:
    rows = await db.execute_fetchall("SELECT count(*) FROM fleet_reports WHERE v > sent")
    return int(next(iter(rows))[0])


async def by_ids(db: aiosqlite.Connection, session_ids: Iterable[str]) -> dict[str, ReportRow]:
    """Returns those of the sessions that are noted, by id."""
    asked = (json.dumps(list(session_ids)),)
    rows = await db.execute_fetchall(f"{_REPORT} WHERE session_id IN (SELECT value FROM json_each(?))", asked)  # noqa: S608
    return {row["session_id"]: ReportRow(*row) for row in rows}


async def adopted(db: aiosqlite.Connection, session_ids: Iterable[str]) -> set[str]:
    """Returns those of the sessions whose figures the store has in part: it was restored, and the rest was told."""
    rows = await db.execute_fetchall(
        """
        SELECT session_id FROM fleet_reports
        WHERE session_id IN (SELECT value FROM json_each(?)) AND basis IS NOT NULL
        """,
        (json.dumps(list(session_ids)),),
    )
    return {row[0] for row in rows}


async def put_figures(db: aiosqlite.Connection, rows: Iterable[ReportRow]) -> None:
    """Notes the figures that are about to be told."""
    await db.executemany(
        """
        UPDATE fleet_reports SET bytes_in = ?, bytes_out = ?, counted_ms = ?, until_ms = ?, until_boot_id = ?
        WHERE session_id = ?
        """,
        [(r.bytes_in, r.bytes_out, r.counted_ms, r.until_ms, r.until_boot_id, r.session_id) for r in rows],
    )


class Acknowledged(NamedTuple):
    """Names a report that the hub has. `total_bytes`: as it says."""

    session_id: str
    v: int
    epoch: str
    total_bytes: int


async def acknowledge(db: aiosqlite.Connection, reports: Sequence[Acknowledged], month_of: dict[str, str]) -> None:
    """Notes what the hub has, and adds it to the sums of months. `month_of`: by session id."""
    known = await by_ids(db, [r.session_id for r in reports])
    sums: dict[str, MonthSums] = {}
    taken = []
    for r in reports:
        row = known.get(r.session_id)
        if row is None or row.epoch != r.epoch or row.sent >= r.v:
            continue
        month = month_of[r.session_id]
        was = sums.get(month, MonthSums())
        new = MonthSums(
            was.sessions + (row.sent == 0), was.sum_v + r.v - row.sent, was.sum_bytes + r.total_bytes - row.sent_bytes
        )
        sums[month] = new
        taken.append((r.v, r.total_bytes, r.session_id))
    await db.executemany(
        """
        UPDATE fleet_reports SET sent = ?1, sent_bytes = ?2, urgent = iif(v > ?1, urgent, 0) WHERE session_id = ?3
        """,
        taken,
    )
    await db.executemany(
        """
        INSERT INTO fleet_report_months VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET
            sessions = sessions + ?2, sum_v = sum_v + ?3, sum_bytes = sum_bytes + ?4
        """,
        [(month, s.sessions, s.sum_v, s.sum_bytes) for month, s in sums.items()],
    )


async def months(db: aiosqlite.Connection) -> dict[str, MonthSums]:
    """Returns the sums of what was acknowledged, by the month of creation."""
    rows = await db.execute_fetchall("SELECT month, sessions, sum_v, sum_bytes FROM fleet_report_months")
    return {month: MonthSums(*sums) for month, *sums in rows}


async def send_month_again(db: aiosqlite.Connection, month: str) -> int:
    """Has all sessions reported again that were created in the month. Returns how many."""
    cursor = await db.execute(
        "UPDATE fleet_reports SET v = v + 1 WHERE created_at >= ? AND created_at < ? AND v <= sent", month_bounds(month)
    )
    return cursor.rowcount


# After the store went back -------------------------------------------------------------------------


class NextEpoch(NamedTuple):
    """Describes the epoch in which a session is reported from now on."""

    session_id: str
    turn: int
    epoch: str
    v: int
    basis: str | None


async def put_epochs(db: aiosqlite.Connection, epochs: Iterable[NextEpoch]) -> None:
    """Begins epochs of sessions that are noted."""
    await db.executemany(
        "UPDATE fleet_reports SET turn = ?, epoch = ?, v = ?, basis = ?, urgent = 1 WHERE session_id = ?",
        [(e.turn, e.epoch, e.v, e.basis, e.session_id) for e in epochs],
    )


async def put_unknown(db: aiosqlite.Connection, rows: Iterable[ReportRow]) -> None:
    """Notes sessions that the hub was told of, and the store has not: it ends them."""
    await db.executemany(
        """
        INSERT INTO fleet_reports (session_id, created_at, v, sent, sent_bytes, gone, turn, epoch, basis, bytes_in,
            bytes_out, counted_ms, until_ms, until_boot_id)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
        """,
        list(rows),
    )


async def begin_epochs(db: aiosqlite.Connection) -> None:
    """Begins another epoch for all sessions that have not ended: a report of the last one may still be on its way."""
    await db.execute(
        """
        UPDATE fleet_reports SET turn = turn + 1, epoch = lower(hex(randomblob(8))), v = v + 1
        WHERE session_id IN (SELECT id FROM sessions WHERE state IN ('live', 'closing') AND state <> 'terminated')
        """
    )


# Of a store that no server uses --------------------------------------------------------------------


def is_reporting(db: sqlite3.Connection) -> bool:
    """Tells whether the store is of an exit in a fleet; one of an older schema is not."""
    if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'fleet_reporting'").fetchone() is None:
        return False
    return db.execute("SELECT 1 FROM fleet_reporting").fetchone() is not None


def mark_restored(db: sqlite3.Connection) -> None:
    """Has the exit ask what its store lacks before it reports anything."""
    db.execute("UPDATE fleet_reporting SET restored = 1")
