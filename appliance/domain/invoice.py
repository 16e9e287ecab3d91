"""Computes an account's invoice for one month: lines, totals, and differences from the daily totals. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain.charges import Amount, Charge, by_month

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from appliance.domain.pricing import Rates


@dataclass(frozen=True, slots=True)
class Line:
    """Bills a session's part of one month. `ended_at` is None while it runs."""

    session_id: str
    month: str
    started_at: int
    ended_at: int | None
    rates: Rates | None
    charge: Charge


@dataclass(frozen=True, slots=True)
class Total:
    """Sums the lines of one currency. `currency` is None for lines without a configured price; their costs are 0."""

    currency: str | None
    lines: int
    seconds: int
    total_bytes: int
    time_millicents: int
    bytes_millicents: int

    @property
    def millicents(self) -> int:
        return self.time_millicents + self.bytes_millicents


def totals(lines: Iterable[Line]) -> list[Total]:
    """Returns one total per currency, in alphabetical order, summed from the lines as stored."""
    groups: dict[str | None, list[Line]] = {}
    for line in lines:
        groups.setdefault(None if line.rates is None else line.rates.currency, []).append(line)
    return [
        Total(
            currency=currency,
            lines=len(group),
            seconds=sum(line.charge.seconds for line in group),
            total_bytes=sum(line.charge.total_bytes for line in group),
            time_millicents=sum(line.charge.time_millicents or 0 for line in group),
            bytes_millicents=sum(line.charge.bytes_millicents or 0 for line in group),
        )
        for currency, group in sorted(groups.items(), key=lambda item: item[0] or "")
    ]


def differences(
    month: str,
    lines: Sequence[Line],
    days: Mapping[str, Sequence[tuple[str, Amount]]],
    rates: Mapping[str, Rates | None],
) -> list[str]:
    """Lists the differences between the lines and the daily totals; empty if all agree.

    `days`: by session id, all days of every session that has a line or traffic in the month. `rates`: those of the
    sessions still stored; for the others, the line's own rates are used.
    """
    faults = []
    by_id = {line.session_id: line for line in lines}
    for session_id in sorted(days.keys() | by_id.keys()):
        line = by_id.get(session_id)
        if line is None:
            faults.append(f"{session_id} has daily totals in {month} and no line")
            continue
        if line.rates != rates.get(session_id, line.rates):
            faults.append(f"{session_id}: the line's rates are not the session's")
            continue
        charges = dict(by_month(line.rates, days.get(session_id, ()), Amount()))
        expected = charges.get(month)
        if expected != line.charge:
            faults.append(f"{session_id}: the line says {_words(line.charge)}, its days {_words(expected)}")
    return faults


def _words(charge: Charge | None) -> str:
    if charge is None:
        return "nothing"
    return (
        f"{charge.seconds} s, {charge.bytes_in}+{charge.bytes_out} B, "
        f"{charge.time_millicents}+{charge.bytes_millicents} millicents"
    )
