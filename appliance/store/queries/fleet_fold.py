"""Queries what a hub was told by the exits of its fleet: sessions, and sums by months. Lines: see fleet_lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from appliance.domain.charges import month_bounds
from appliance.store.queries.fleet_reports import MonthSums

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import aiosqlite

# Sums go round here: what a lying exit reports must not make numbers that the store refuses.
SUMS_END = 2**62

_PUT_SESSION = """
INSERT INTO fleet_sessions (session_id, node, turn, epoch, v, batch, account_id, created_at, state, bytes_in, bytes_out,
    counted_ms, said)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT DO UPDATE SET
    turn = ?3, epoch = ?4, v = ?5, batch = ?6, account_id = ?7, created_at = ?8, state = ?9, bytes_in = ?10,
    bytes_out = ?11, counted_ms = ?12, said = ?13
"""
# The ids come from the index alone: sorting what was said of all that was ever reported takes seconds a page. Not by
# batch: that of a session may rise between two pages.
_SAID_AFTER_BATCH = """
SELECT session_id, said FROM fleet_sessions WHERE node = :node AND session_id IN (
    SELECT session_id FROM fleet_sessions WHERE node = :node AND batch > :batch AND session_id > :after
    ORDER BY session_id LIMIT :most)
ORDER BY session_id
"""
# In the order of the index: each page is read from where the last one ended.
_SAID_OF_MONTH = """
SELECT session_id, said FROM fleet_sessions
WHERE node = :node AND (created_at, session_id) > (:since, :after) AND created_at < :end
ORDER BY created_at, session_id LIMIT :most
"""
_OF_ACCOUNT = """
SELECT session_id, node, said FROM fleet_sessions
WHERE account_id = :account AND node = :node AND (created_at, session_id) < (:created_at, :session_id)
ORDER BY created_at DESC, session_id DESC LIMIT :most
"""
_LIVE_OF_ACCOUNT = _OF_ACCOUNT.replace("ORDER BY", "AND state = 'live' ORDER BY")


class FoldedRow(NamedTuple):
    """Holds a row of fleet_sessions. `said`: the report, with the figures that hold, as JSON."""

    session_id: str
    node: str
    turn: int
    epoch: str
    v: int
    batch: int
    account_id: str
    created_at: int
    state: str
    bytes_in: int
    bytes_out: int
    counted_ms: int
    said: bytes


class Said(NamedTuple):
    """Holds what an exit said of one of its sessions, as JSON."""

    session_id: str
    node: str
    said: bytes


async def said_of(db: aiosqlite.Connection, node: str, session_ids: Iterable[str]) -> dict[str, bytes]:
    """Returns what the node said of those of the sessions that are known, by id."""
    rows = await db.execute_fetchall(
        "SELECT session_id, said FROM fleet_sessions WHERE session_id IN (SELECT value FROM json_each(?)) AND node = ?",
        (json.dumps(list(session_ids)), node),
    )
    return {row["session_id"]: _bytes(row["said"]) for row in rows}


async def put_sessions(db: aiosqlite.Connection, rows: Iterable[FoldedRow]) -> None:
    await db.executemany(_PUT_SESSION, [(*row[:-1], row.said.decode()) for row in rows])


async def months(db: aiosqlite.Connection, node: str) -> dict[str, MonthSums]:
    """Returns the sums of what the node reported, by the month (UTC) in which the sessions were created."""
    rows = await db.execute_fetchall(
        "SELECT month, sessions, sum_v, sum_bytes FROM fleet_months WHERE node = ?", (node,)
    )
    return {month: MonthSums(*sums) for month, *sums in rows}


async def add_to_months(db: aiosqlite.Connection, node: str, added: Mapping[str, MonthSums]) -> None:
    """Adds to the sums, or takes from them."""
    known = await months(db, node)
    rows = []
    for month, more in added.items():
        was = known.get(month, MonthSums())
        sum_v, sum_bytes = (was.sum_v + more.sum_v) % SUMS_END, (was.sum_bytes + more.sum_bytes) % SUMS_END
        rows.append((node, month, was.sessions + more.sessions, sum_v, sum_bytes))
    await db.executemany("INSERT OR REPLACE INTO fleet_months VALUES (?, ?, ?, ?, ?)", rows)


async def last_batch(db: aiosqlite.Connection, node: str) -> tuple[int, str] | None:
    """Returns the number and the mark of the node's last batch; None: it has reported nothing."""
    rows = await db.execute_fetchall("SELECT batch, mark FROM fleet_nodes WHERE node = ?", (node,))
    return next(((row["batch"], row["mark"]) for row in rows), None)


async def nodes(db: aiosqlite.Connection) -> list[tuple[str, int, str, int, int]]:
    """Returns of each node that has ever reported its last batch and mark, and up to when it said in which batch to
    have reported all."""
    rows = await db.execute_fetchall("SELECT node, batch, mark, upto, upto_batch FROM fleet_nodes ORDER BY node")
    return [(node, batch, mark, upto, upto_batch) for node, batch, mark, upto, upto_batch in rows]


async def note_batch(db: aiosqlite.Connection, node: str, number: int, mark: str) -> None:
    """Notes a batch, if there was none after it."""
    await db.execute(
        """
        INSERT INTO fleet_nodes (node, batch, mark) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET
            mark = iif(?2 >= batch, ?3, mark), batch = max(batch, ?2)
        """,
        (node, number, mark),
    )


async def note_upto(db: aiosqlite.Connection, node: str, batch: int, upto: int) -> None:
    """Notes up to when a node that is known says to have reported all, with that batch.

    A later batch may say less: the node's wall clock was ahead. An earlier one comes late.
    """
    await db.execute(
        """
        UPDATE fleet_nodes SET upto = iif(?2 > upto_batch, ?3, max(upto, ?3)), upto_batch = ?2
        WHERE node = ?1 AND upto_batch <= ?2
        """,
        (node, batch, upto),
    )


async def reported_until(db: aiosqlite.Connection) -> dict[str, int]:
    """Returns up to when (wall clock, ms) each node says to have reported all; 0: it has not said."""
    return {row["node"]: row["upto"] for row in await db.execute_fetchall("SELECT node, upto FROM fleet_nodes")}


async def said_after_batch(db: aiosqlite.Connection, node: str, batch: int, after: str, most: int) -> list[Said]:
    """Returns up to `most` sessions that the node reported last in a later batch, by id, from `after` on."""
    asked = {"node": node, "batch": batch, "after": after, "most": most}
    return [Said(row[0], node, _bytes(row[1])) for row in await db.execute_fetchall(_SAID_AFTER_BATCH, asked)]


async def said_of_month(db: aiosqlite.Connection, node: str, month: str, after: str, most: int) -> list[Said]:
    """Returns up to `most` of the node's sessions that were created in the month, oldest first, from `after` on.

    If that session is not known, from the first on.
    """
    since, end = month_bounds(month)
    known = "SELECT created_at FROM fleet_sessions WHERE session_id = ? AND node = ? AND created_at >= ?"
    for row in await db.execute_fetchall(known, (after, node, since)):
        since = row["created_at"]
        break
    else:
        after = ""
    asked = {"node": node, "since": since, "end": end, "after": after, "most": most}
    return [Said(row[0], node, _bytes(row[1])) for row in await db.execute_fetchall(_SAID_OF_MONTH, asked)]


async def by_session(db: aiosqlite.Connection, session_id: str) -> list[Said]:
    """Returns what nodes said of the session: one, unless a node lies."""
    rows = await db.execute_fetchall(
        "SELECT session_id, node, said FROM fleet_sessions WHERE session_id = ? ORDER BY node", (session_id,)
    )
    return [Said(row[0], row[1], _bytes(row[2])) for row in rows]


async def of_account(
    db: aiosqlite.Connection, account_id: str, node: str, before: tuple[int, str], most: int, *, live: bool
) -> list[Said]:
    """Returns up to `most` sessions of the account on a node, newest first, before the place (created_at, id)."""
    asked = {"account": account_id, "node": node, "created_at": before[0], "session_id": before[1], "most": most}
    rows = await db.execute_fetchall(_LIVE_OF_ACCOUNT if live else _OF_ACCOUNT, asked)
    return [Said(row[0], row[1], _bytes(row[2])) for row in rows]


def _bytes(text: str) -> bytes:
    return text.encode()
