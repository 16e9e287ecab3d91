"""Makes reports of this exit's sessions from what its store has of them. Reads alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from appliance.domain import accounting
from appliance.domain.charges import Amount, month_bounds
from appliance.domain.entities import Reason, State
from appliance.fleet.reports.epochs import (
    NOTHING,
    Basis,
    CountedUntil,
    Epoch,
    OwnSession,
    PeerLife,
    Totals,
    reported,
    reported_lives,
)
from appliance.fleet.reports.reports import ReportedLife, ReportedLine, ReportedRates, ReportedWindows, SessionReport
from appliance.store.queries import accounts, fleet_lives, invoices, sessions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import aiosqlite

    from appliance.domain.charges import Charge
    from appliance.domain.entities import Session
    from appliance.domain.invoice import Line
    from appliance.domain.windows import Windows
    from appliance.fleet.reports.epochs import ReportBatch
    from appliance.store.queries.fleet_lives import LifeRow
    from appliance.store.queries.fleet_reports import ReportRow

# With more, a hub is told that they prove nothing: a report has to fit into a message.
MOST_LIVES = 64
LONGEST_REASON = 500


class OwnFacts(NamedTuple):
    """Holds all that the store has of a session to report. `session` is None if it is gone.

    `account_id`: "" if not even a line says whose it was. `windows`: the account's; None: it is deleted.
    """

    row: ReportRow
    session: Session | None
    own: OwnSession
    lines: Mapping[str, Line]
    account_id: str = ""
    windows: Windows | None = None

    @property
    def basis(self) -> Basis:
        return NOTHING if self.row.basis is None else msgspec.json.decode(self.row.basis, type=Basis)

    @property
    def epoch(self) -> Epoch:
        return Epoch(self.row.turn, self.row.epoch)


async def facts(db: aiosqlite.Connection, rows: Sequence[ReportRow]) -> list[OwnFacts]:
    """Reads what the store has of these sessions. The caller must be in one transaction."""
    ids = [row.session_id for row in rows]
    own = await sessions.by_ids(db, ids)
    lives = await fleet_lives.of_sessions(db, ids)
    gone = [each for each in ids if each not in own]
    paid = [s.id for s in own.values() if s.rates is not None or s.tier.value == "paid"]
    bills = await invoices.bills(db, [*paid, *gone])
    owners = await invoices.accounts_of(db, gone) | {s.id: s.account_id for s in own.values()}
    known = await accounts.by_ids(db, {s.account_id for s in own.values()})
    found = []
    for row in rows:
        session = own.get(row.session_id)
        lines = bills[row.session_id].lines if row.session_id in bills else {}
        account_id = owners.get(row.session_id, "")
        windows = known[account_id].windows if account_id in known else None
        of_store = _own(row, session, lives[row.session_id], lines)
        found.append(OwnFacts(row, session, of_store, lines, account_id, windows))
    return found


def _own(row: ReportRow, session: Session | None, lives: Sequence[LifeRow], lines: Mapping[str, Line]) -> OwnSession:
    told = Amount(row.counted_ms, row.bytes_in, row.bytes_out)
    amount = told if session is None else accounting.total(session)
    return OwnSession(
        Totals(amount, {month: line.charge for month, line in lines.items()}),
        [PeerLife(*life) for life in lives],
        None if session is None else session.rates,
        row.counted_ms,
        CountedUntil(row.until_boot_id, row.until_ms),
    )


def as_told(each: OwnFacts) -> ReportRow:
    """Returns the row with the figures that a report made now tells."""
    session, amount = each.session, each.own.totals.amount
    if session is None:
        return each.row
    return each.row._replace(
        bytes_in=amount.bytes_in,
        bytes_out=amount.bytes_out,
        counted_ms=amount.time_ms,
        until_ms=session.counted_until_ms,
        until_boot_id=session.counted_boot_id,
    )


def report_of(each: OwnFacts, batch: ReportBatch) -> SessionReport:
    """Makes the report of one session, to be sent in this batch."""
    row, basis, session = each.row, each.basis, each.session
    totals = reported(basis, each.own.totals)
    lives = reported_lives(basis, each.own.lives)
    gone = SessionReport(
        v=row.v,
        epoch=row.epoch,
        turn=row.turn,
        batch=batch.number,
        mark=batch.mark,
        created_at=row.created_at,
        bytes_in=totals.amount.bytes_in,
        bytes_out=totals.amount.bytes_out,
        ms=totals.amount.time_ms,
        until_ms=row.until_ms,
        until_boot=row.until_boot_id,
        lives=tuple(ReportedLife(*msgspec.structs.astuple(life)) for life in lives[-MOST_LIVES:]),
        passed_on=len(lives) > MOST_LIVES,
    )
    lines = tuple(_lines(totals.lines, each)) if session is not None or each.lines else ()
    gone = msgspec.structs.replace(gone, account_id=each.account_id, lines=lines)
    if session is not None:
        return _of_stored(gone, session, each)
    lost = bool(basis.lost) and not each.lines
    return _of_lost(gone, msgspec.json.decode(basis.lost, type=SessionReport)) if lost else gone


def _of_lost(gone: SessionReport, told: SessionReport) -> SessionReport:
    """Adds what a hub was told of a session that this store has lost: it may be another hub by now."""
    return msgspec.structs.replace(
        gone,
        account_id=told.account_id,
        tier=told.tier,
        region=told.region,
        public_ip=told.public_ip,
        reason=told.reason,
        expires_at=told.expires_at,
        ended_at=told.ended_at,
        device_id=told.device_id,
        lines=told.lines,
    )


def _of_stored(gone: SessionReport, session: Session, each: OwnFacts) -> SessionReport:
    """Adds what only a session says that the store has: retention removes it before its lines."""
    return msgspec.structs.replace(
        gone,
        state=session.state.value,
        tier=session.tier.value,
        region=session.region,
        public_ip=session.public_ip,
        reason=session.ending and session.ending[:LONGEST_REASON],
        expires_at=session.expires_at,
        ended_at=session.terminated_at,
        device_id=session.device_id,
        until_ms=session.counted_until_ms,
        until_boot=session.counted_boot_id,
        passed_on=gone.passed_on or _is_passed_on(session),
        windows=None if each.windows is None else ReportedWindows.of(each.windows),
    )


def _is_passed_on(session: Session) -> bool:
    """Tells whether its peer may have become another session's: its successor's, or its device's next one's."""
    return session.state is State.TERMINATED and (session.reason is Reason.REPLACED or bool(session.device_id))


def _lines(charges: Mapping[str, Charge], each: OwnFacts) -> list[ReportedLine]:
    own, session = each.lines, each.session
    rates = next(iter(own.values())).rates if session is None else session.rates
    prices = None if rates is None else ReportedRates(rates.currency, rates.per_minute, rates.per_gib)
    lines = []
    for month, charge in sorted(charges.items()):
        line = own.get(month)
        if line is not None:
            began, ended = line.started_at, line.ended_at
        else:  # its store lacks it
            first, end = month_bounds(month)
            began, ended = (first, end) if session is None else (session.created_at, session.terminated_at)
        lines.append(
            ReportedLine(
                month,
                began,
                ended,
                charge.seconds,
                charge.bytes_in,
                charge.bytes_out,
                prices,
                charge.time_millicents,
                charge.bytes_millicents,
            )
        )
    return lines
