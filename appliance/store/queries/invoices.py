"""Queries daily totals of paid sessions, and their invoice lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from msgspec.structs import astuple

from appliance.domain import bill
from appliance.domain.accounting import Reading
from appliance.domain.bill import Bill
from appliance.domain.charges import Amount, Charge, by_month, month_bounds
from appliance.domain.invoice import Line
from appliance.domain.tiers import Tier
from appliance.store.queries.sessions import rates_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    import aiosqlite

    from appliance.domain.entities import Session
    from appliance.domain.pricing import Rates


# Writing, in the transaction that counts what is written -------------------------------------------


async def begin(db: aiosqlite.Connection, sessions: Iterable[Session], now_ms: int) -> None:
    """Adds new paid sessions to the invoice from their first moment, with an empty reading each."""
    await _add(db, [Reading(Amount(), now_ms, now_ms, s, None) for s in sessions if s.tier is Tier.PAID])


async def add_readings(db: aiosqlite.Connection, readings: Iterable[Reading]) -> None:
    """Adds readings of paid sessions to their days and lines."""
    paid = [r for r in readings if r.after.tier is Tier.PAID]
    if not paid:
        return
    ends = await _add(db, paid)
    # A line of a past month ends with that month.
    await db.executemany(
        "UPDATE invoice_lines SET ended_at = ? WHERE session_id = ? AND month < ? AND ended_at IS NULL", ends
    )
    await _recalculate(db, {r.after.id: r.after.rates for r in paid}, min(month for _, _, month in ends))


async def _add(db: aiosqlite.Connection, readings: Iterable[Reading]) -> list[tuple[int, str, str]]:
    """Adds to days and lines; returns the beginning of the month, the session and the month of each line."""
    days, lines, ends = [], [], []
    for r in readings:
        parts = bill.days_of(r)
        days += [(r.after.id, day, part.time_ms, part.bytes_in, part.bytes_out) for day, part in parts]
        for month, charge in bill.charges_of(r, parts):
            first, _ = month_bounds(month)
            lines.append(_line_row(r.after, month, first, charge))
            ends.append((first, r.after.id, month))
    if lines:
        await db.executemany(_ADD_DAY, days)
        await db.executemany(_ADD_LINE, lines)
    return ends


async def _recalculate(db: aiosqlite.Connection, rates: Mapping[str, Rates | None], month: str) -> None:
    """Recalculates all lines of those sessions that have a line later than `month`, which was just added to.

    This happens when the wall clock was set back over the end of a month. Lines are differences of rounded totals in
    the order of the days, so adding to an earlier month can move a second, or a millicent, out of the later ones.
    """
    rows = await db.execute_fetchall(
        """
        SELECT DISTINCT l.session_id FROM json_each(?) touched
        JOIN invoice_lines l ON l.session_id = touched.value AND l.month > ?
        """,
        (json.dumps(list(rates)), month),
    )
    for (session_id,) in rows:
        charges = by_month(rates[session_id], await days(db, session_id), Amount())
        await db.executemany(
            """
            UPDATE invoice_lines SET seconds = ?, bytes_in = ?, bytes_out = ?, time_millicents = ?, bytes_millicents = ?
            WHERE session_id = ? AND month = ?
            """,
            [(*astuple(charge), session_id, month) for month, charge in charges],
        )


async def end(db: aiosqlite.Connection, ended: Iterable[tuple[str, int | None]]) -> None:
    """Ends the open lines of sessions (id, when)."""
    await db.executemany(
        "UPDATE invoice_lines SET ended_at = ? WHERE session_id = ? AND ended_at IS NULL",
        [(when, session_id) for session_id, when in ended],
    )


async def take_back(db: aiosqlite.Connection, session_ids: Iterable[str]) -> None:
    """Deletes daily totals and lines of sessions whose creation was never answered to the client."""
    ids = [(session_id,) for session_id in session_ids]
    await db.executemany("DELETE FROM usage_days WHERE session_id = ?", ids)
    await db.executemany("DELETE FROM invoice_lines WHERE session_id = ?", ids)


async def bring_back(db: aiosqlite.Connection, session_ids: Iterable[str]) -> None:
    """Opens the last lines again of sessions that have not ended after all."""
    await db.executemany(
        """
        UPDATE invoice_lines SET ended_at = NULL
        WHERE session_id = ?1 AND month = (SELECT max(month) FROM invoice_lines WHERE session_id = ?1)
          AND EXISTS (SELECT 1 FROM sessions s WHERE s.id = ?1 AND s.state <> 'terminated')
        """,
        [(session_id,) for session_id in session_ids],
    )


_ADD_DAY = """
INSERT INTO usage_days (session_id, day, counted_ms, bytes_in, bytes_out) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET counted_ms = counted_ms + excluded.counted_ms,
    bytes_in = bytes_in + min(excluded.bytes_in, 9223372036854775807 - bytes_in),
    bytes_out = bytes_out + min(excluded.bytes_out, 9223372036854775807 - bytes_out)
"""

_ADD_LINE = """
INSERT INTO invoice_lines (session_id, month, account_id, started_at, currency, millicents_per_minute,
    millicents_per_gib, seconds, bytes_in, bytes_out, time_millicents, bytes_millicents)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET seconds = seconds + excluded.seconds,
    bytes_in = bytes_in + min(excluded.bytes_in, 9223372036854775807 - bytes_in),
    bytes_out = bytes_out + min(excluded.bytes_out, 9223372036854775807 - bytes_out),
    time_millicents = time_millicents + excluded.time_millicents,
    bytes_millicents = bytes_millicents + excluded.bytes_millicents
"""


def _line_row(session: Session, month: str, first_ms: int, charge: Charge) -> tuple[object, ...]:
    rates = session.rates
    return (
        *(session.id, month, session.account_id, max(session.created_at, first_ms)),
        *((rates.currency, rates.per_minute, rates.per_gib) if rates else (None, None, None)),
        *(charge.seconds, charge.bytes_in, charge.bytes_out, charge.time_millicents, charge.bytes_millicents),
    )


# Reading -------------------------------------------------------------------------------------------

LINES_OF = "SELECT * FROM invoice_lines WHERE session_id IN (SELECT value FROM json_each(?))"
DAYS_OF = "SELECT * FROM usage_days WHERE session_id IN (SELECT value FROM json_each(?)) ORDER BY session_id, day"


def _line(row: sqlite3.Row) -> Line:
    charge = Charge(row["seconds"], row["bytes_in"], row["bytes_out"], row["time_millicents"], row["bytes_millicents"])
    return Line(row["session_id"], row["month"], row["started_at"], row["ended_at"], rates_of(row), charge)


async def lines(db: aiosqlite.Connection, account_id: str, month: str) -> list[Line]:
    """Returns the account's lines of the month, in the order in which the sessions started."""
    rows = await db.execute_fetchall(
        "SELECT * FROM invoice_lines WHERE account_id = ? AND month = ? ORDER BY started_at, session_id",
        (account_id, month),
    )
    return [_line(row) for row in rows]


async def bills(db: aiosqlite.Connection, session_ids: Iterable[str]) -> dict[str, Bill]:
    """Returns all lines and daily totals of these sessions, by id."""
    ids = list(session_ids)
    asked = (json.dumps(ids),)
    found: dict[str, Bill] = {session_id: Bill({}, []) for session_id in ids}
    for row in await db.execute_fetchall(LINES_OF, asked):
        line = _line(row)
        found[line.session_id].lines[line.month] = line
    days: dict[str, list[tuple[str, Amount]]] = {session_id: [] for session_id in ids}
    for row in await db.execute_fetchall(DAYS_OF, asked):
        days[row["session_id"]].append(_day(row))
    return {session_id: Bill(each.lines, days[session_id]) for session_id, each in found.items()}


async def accounts_of(db: aiosqlite.Connection, session_ids: Iterable[str]) -> dict[str, str]:
    """Returns the accounts of those of the sessions that have lines, by session id."""
    rows = await db.execute_fetchall(
        "SELECT session_id, account_id FROM invoice_lines WHERE session_id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(session_ids)),),
    )
    return {row["session_id"]: row["account_id"] for row in rows}


async def sessions_of_month(db: aiosqlite.Connection, account_id: str, month: str) -> list[str]:
    """Returns the ids of the account's sessions that have a line or daily totals in the month.

    Includes sessions that have daily totals but no row that names their account: their line was lost.
    """
    rows = await db.execute_fetchall(
        """
        SELECT session_id FROM invoice_lines WHERE account_id = ? AND month = ?
        UNION
        SELECT session_id FROM usage_days d WHERE day BETWEEN ? AND ?
            AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.id = d.session_id AND s.account_id <> ?)
            AND NOT EXISTS (SELECT 1 FROM invoice_lines l WHERE l.session_id = d.session_id AND l.account_id <> ?)
        """,
        (account_id, month, f"{month}-01", f"{month}-31", account_id, account_id),
    )
    return [row[0] for row in rows]


async def rates(db: aiosqlite.Connection, session_ids: Iterable[str]) -> dict[str, Rates | None]:
    """Returns the rates under which the sessions were created, except of sessions that retention has removed."""
    rows = await db.execute_fetchall(
        """
        SELECT id, currency, millicents_per_minute, millicents_per_gib FROM sessions
        WHERE id IN (SELECT value FROM json_each(?))
        """,
        (json.dumps(list(session_ids)),),
    )
    return {row["id"]: rates_of(row) for row in rows}


async def days(db: aiosqlite.Connection, session_id: str) -> list[tuple[str, Amount]]:
    """Returns what the session moved on each day, oldest first."""
    rows = await db.execute_fetchall(
        "SELECT day, counted_ms, bytes_in, bytes_out FROM usage_days WHERE session_id = ? ORDER BY day", (session_id,)
    )
    return [_day(row) for row in rows]


def _day(row: sqlite3.Row) -> tuple[str, Amount]:
    return row["day"], Amount(row["counted_ms"], row["bytes_in"], row["bytes_out"])
