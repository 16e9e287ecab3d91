"""Divides readings of a paid session over the days and months of its bill. Pure.

The meter stores what this computes. A reader computes the same for what has not been stored yet, so that an invoice is
at any moment what it would be, had all sessions been counted then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import Struct

from appliance.domain import accounting
from appliance.domain.charges import Amount, add_days, by_day, by_month, charge, month_bounds
from appliance.domain.invoice import Line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.domain.accounting import Reading
    from appliance.domain.charges import Charge


class Bill(Struct, frozen=True):
    """Holds a session's lines, by month, and its daily totals, oldest first."""

    lines: dict[str, Line]
    days: Sequence[tuple[str, Amount]]


def days_of(reading: Reading) -> list[tuple[str, Amount]]:
    """Divides the reading over days; they add up to its amount."""
    # A clock that was set back may label some of it as before the session: in whatever parts it is counted.
    use, time = reading.use, Amount(time_ms=reading.amount.time_ms)
    moved_ms = use.start_ms if use.moved_ms is None else use.moved_ms
    read_ms = use.end_ms if use.read_ms is None else use.read_ms
    if not use.total_bytes or (moved_ms, read_ms) == (use.start_ms, use.end_ms):
        return list(by_day(reading.amount, use.start_ms, use.end_ms))
    moved = by_day(reading.amount - time, min(moved_ms, read_ms), read_ms)
    return add_days(by_day(time, use.start_ms, use.end_ms) if time.time_ms else (), moved)


def charges_of(reading: Reading, days: Sequence[tuple[str, Amount]]) -> list[tuple[str, Charge]]:
    """Returns what the reading adds to the line of each month, oldest first. `days`: see `days_of`."""
    return list(by_month(reading.after.rates, days, accounting.total(reading.after) - reading.amount))


def with_reading(bill: Bill, reading: Reading) -> Bill:
    """Returns the bill as it is once the reading is stored."""
    parts, lines = days_of(reading), dict(bill.lines)
    days, session = add_days(bill.days, parts), reading.after
    added = charges_of(reading, parts)
    for month, more in added:
        first_ms, _ = month_bounds(month)
        line = lines.get(month) or new_line(reading, month)
        lines[month] = replace(line, charge=line.charge + more)
        # A line of a past month ends with that month.
        ended = (one for one in lines.values() if one.month < month and one.ended_at is None)
        lines |= {one.month: replace(one, ended_at=first_ms) for one in list(ended)}
    if max(lines) > added[0][0]:
        # The same as the store does where an earlier month was added to.
        lines |= {m: replace(lines[m], charge=c) for m, c in by_month(session.rates, days, Amount()) if m in lines}
    return Bill(lines, days)


def new_line(reading: Reading, month: str) -> Line:
    """Returns a line that the reading begins, of nothing yet."""
    session = reading.after
    first_ms, _ = month_bounds(month)
    nothing = charge(session.rates, Amount(), Amount())
    return Line(session.id, month, max(session.created_at, first_ms), None, session.rates, nothing)
