"""Takes over from a hub what this exit's store lacks, as it was restored or rolled back with its machine."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import msgspec

from appliance.fleet.link.reading import read
from appliance.fleet.link.wire import PREFIX
from appliance.fleet.reports.epochs import Basis, adopted
from appliance.fleet.reports.own_reports import facts
from appliance.fleet.reports.reports import UsageAnswer, UsageRequest, created_in
from appliance.store.queries import fleet_reports
from appliance.store.queries.fleet_reports import Acknowledged, NextEpoch, ReportRow

if TYPE_CHECKING:
    import aiosqlite

    from appliance.fleet.link.wire import HubLink
    from appliance.fleet.reports.own_reports import OwnFacts
    from appliance.fleet.reports.reports import SessionReport, ToldReport
    from appliance.store.database import Store

ANSWER_S = 10.0


class Adopting:
    """Asks a hub what it was told of this exit's sessions, and begins epochs of them from there."""

    def __init__(self, node: str, link: HubLink, store: Store) -> None:
        self._subject = f"{PREFIX}.led.{node}.usage"
        self._link = link
        self._store = store

    async def adopt(self, wanted: UsageRequest) -> int:
        """Adopts all sessions that the request names, a page at a time. Returns how many there were.

        Of a month, only those of which the hub has a later epoch. Raises FleetError or StoreUnavailable; what was
        adopted by then stays, and to adopt it again changes nothing.
        """
        count, more = 0, True
        while more:
            answer = await self._link.request(self._subject, msgspec.json.encode(wanted), ANSWER_S)
            page = read(answer, UsageAnswer)
            async with self._store.write() as db:
                count += await self._adopt(db, page, later_only=wanted.month is not None)
            more = page.more and bool(page.sessions)
            if more:
                wanted = msgspec.structs.replace(wanted, after=page.sessions[-1].session)
        return count

    async def _adopt(self, db: aiosqlite.Connection, page: UsageAnswer, *, later_only: bool) -> int:
        rows = await fleet_reports.by_ids(db, [told.session for told in page.sessions])
        own = {each.row.session_id: each for each in await facts(db, list(rows.values()))}
        known = [told for told in page.sessions if told.session in own]
        if later_only:
            known = [t for t in known if t.report.of_epoch > own[t.session].epoch]
        unknown = [told for told in page.sessions if told.session not in own]
        await fleet_reports.put_epochs(db, [_next(own[told.session], told.report) for told in known])
        await _end(db, unknown)
        return len(known) + len(unknown)


def _next(own: OwnFacts, report: SessionReport) -> NextEpoch:
    basis = adopted(report.told, own.own)
    if own.session is None:
        basis = msgspec.structs.replace(basis, lost=msgspec.json.encode(report).decode())
    row = own.row
    turn, v = max(row.turn, report.turn) + 1, max(row.v, report.v) + 1
    return NextEpoch(row.session_id, turn, new_epoch(), v, msgspec.json.encode(basis).decode())


async def _end(db: aiosqlite.Connection, unknown: list[ToldReport]) -> None:
    """Notes sessions that the store has not: those that have not ended are reported as ended, as nobody has them."""
    await fleet_reports.put_unknown(db, [_lost(told) for told in unknown])
    over = [told for told in unknown if told.report.state == "terminated"]
    await fleet_reports.acknowledge(
        db,
        [Acknowledged(t.session, t.report.v, t.report.epoch, t.report.total_bytes) for t in over],
        {t.session: created_in(t.report.created_at) for t in over},
    )


def _lost(told: ToldReport) -> ReportRow:
    report = told.report
    over = report.state == "terminated"
    basis = Basis(report.told.totals, lives=report.told.lives, lost=msgspec.json.encode(report).decode())
    return ReportRow(
        session_id=told.session,
        created_at=report.created_at,
        v=report.v if over else report.v + 1,
        sent=0,
        sent_bytes=0,
        gone=1,
        turn=report.turn if over else report.turn + 1,
        epoch=report.epoch if over else new_epoch(),
        basis=msgspec.json.encode(basis).decode(),
        bytes_in=0,
        bytes_out=0,
        counted_ms=0,
        until_ms=report.until_ms,
        until_boot_id=report.until_boot,
    )


def new_epoch() -> str:
    return secrets.token_hex(8)
