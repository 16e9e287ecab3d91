"""Puts reports of exits together. Pure, and the same in whatever order, and however often, they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.fleet.reports.epochs import folded
from appliance.fleet.reports.reports import LINES_END

if TYPE_CHECKING:
    from appliance.domain.charges import Charge
    from appliance.fleet.reports.reports import ReportedLine, SessionReport


def merged(known: SessionReport | None, new: SessionReport) -> SessionReport:
    """Returns what is known of a session once `new` has come too: the same, if it says nothing more."""
    if known is None or known.of_epoch < new.of_epoch:
        return _with_what_was_known(known, new)
    if new.of_epoch < known.of_epoch:
        return known
    older, newer = sorted((known, new), key=lambda report: (report.v, report.batch))
    figures = folded(older.figures, newer.figures)
    amount = figures.totals.amount
    return replace(
        _with_what_was_known(older, newer),
        bytes_in=amount.bytes_in,
        bytes_out=amount.bytes_out,
        ms=amount.time_ms,
        batch=max(known.batch, new.batch),
        lines=_lines(older, newer, figures.totals.lines),
    )


def _with_what_was_known(known: SessionReport | None, new: SessionReport) -> SessionReport:
    """An exit that has lost a session can say of it only that it is over, and what its lines say."""
    if known is None or new.region or not known.account_id:
        return new
    return replace(
        new,
        account_id=new.account_id or known.account_id,
        tier=known.tier,
        region=known.region,
        expires_at=known.expires_at,
        device_id=known.device_id,
        lines=new.lines or known.lines,
        ended_at=new.ended_at or known.ended_at,
        reason=new.reason or known.reason,
    )


def _lines(older: SessionReport, newer: SessionReport, charges: dict[str, Charge]) -> tuple[ReportedLine, ...]:
    lines = {line.month: line for line in (*older.lines, *newer.lines)}
    return tuple(
        replace(
            line,
            seconds=charges[month].seconds,
            bytes_in=charges[month].bytes_in,
            bytes_out=charges[month].bytes_out,
            time_mc=charges[month].time_millicents,
            bytes_mc=charges[month].bytes_millicents,
        )
        for month, line in sorted(lines.items())[-LINES_END:]
    )
