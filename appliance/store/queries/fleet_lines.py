"""Queries the invoice lines that the exits of a fleet have reported to this hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from appliance.domain.charges import Charge
from appliance.domain.fleet_invoice import ExitLine
from appliance.domain.invoice import Line
from appliance.store.queries.sessions import rates_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    import aiosqlite

    from appliance.domain.pricing import Rates

_PUT = """
INSERT INTO fleet_lines (session_id, node, account_id, month, started_at, ended_at, seconds, bytes_in, bytes_out,
    currency, millicents_per_minute, millicents_per_gib, time_millicents, bytes_millicents)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


class FoldedLine(NamedTuple):
    """Holds a session's part of one month, as its exit bills it."""

    session_id: str
    account_id: str
    month: str
    started_at: int
    ended_at: int | None
    charge: Charge
    rates: Rates | None


async def put(db: aiosqlite.Connection, node: str, lines: Mapping[str, Sequence[FoldedLine]]) -> None:
    """Puts these in the place of all lines of the sessions that they are given for."""
    await db.executemany(
        "DELETE FROM fleet_lines WHERE session_id = ? AND node = ?", [(session_id, node) for session_id in lines]
    )
    await db.executemany(_PUT, [_row(node, line) for each in lines.values() for line in each])


def _row(node: str, line: FoldedLine) -> tuple[object, ...]:
    charge, rates = line.charge, line.rates
    return (
        *(line.session_id, node, line.account_id, line.month, line.started_at, line.ended_at),
        *(charge.seconds, charge.bytes_in, charge.bytes_out),
        *((rates.currency, rates.per_minute, rates.per_gib) if rates is not None else (None, None, None)),
        *(charge.time_millicents, charge.bytes_millicents),
    )


async def of_account(db: aiosqlite.Connection, account_id: str, month: str) -> list[ExitLine]:
    """Returns the account's lines of the month, of all exits that have ever reported one."""
    rows = await db.execute_fetchall(
        "SELECT * FROM fleet_lines WHERE account_id = ? AND month = ? ORDER BY started_at, session_id, node",
        (account_id, month),
    )
    return [ExitLine(row["node"], _line(row)) for row in rows]


def _line(row: sqlite3.Row) -> Line:
    charge = Charge(row["seconds"], row["bytes_in"], row["bytes_out"], row["time_millicents"], row["bytes_millicents"])
    return Line(row["session_id"], row["month"], row["started_at"], row["ended_at"], rates_of(row), charge)
