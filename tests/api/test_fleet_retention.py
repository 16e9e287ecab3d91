"""What a hub was told of other exits' sessions goes when its own would, and their sums stay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from appliance.fleet.reports.fold import fold_reports
from appliance.fleet.reports.reports import ReportedLine, ReportedRates, SessionReport
from appliance.server.fleet_retention import LINES_A_PIECE, SESSIONS_A_PIECE
from appliance.server.retention import Retention
from appliance.store.queries import fleet_fold, fleet_lines, fleet_reports
from tests.support.api.exit_under_test import ExitUnderTest, on_exit

if TYPE_CHECKING:
    from appliance.store.queries.fleet_reports import MonthSums

DAY_MS = 86_400_000
AMS, SIN = "nod_2", "nod_3"
KEPT = '[pricing]\nkeep = "400d"\n[meter]\nretention = "90d"\n'
MONTH = "2026-09"  # of the virtual clock


def report(created_at: int, ended_at: int | None, *, paid: bool = True) -> SessionReport:
    rates = ReportedRates("eur", 4, 5)
    line = ReportedLine(MONTH, created_at, ended_at, 1, 20, 30, rates, 6, 7)
    return SessionReport(
        v=3,
        epoch="ab",
        turn=0,
        batch=7,
        mark="cd",
        created_at=created_at,
        bytes_in=20,
        bytes_out=30,
        ms=1000,
        state="live" if ended_at is None else "terminated",
        account_id="acc_1",
        tier="paid" if paid else "free",
        region="ams",
        public_ip="192.0.2.7",
        device_id="dev_1",
        ended_at=ended_at,
        lines=(line,) if paid else (),
    )


async def fold(exit_: ExitUnderTest, node: str, *reports: tuple[str, SessionReport]) -> None:
    async with exit_.store.write() as db:
        await fleet_reports.begin_reporting(db)
        await fold_reports(db, node, reports)


async def sweep(exit_: ExitUnderTest, days: float = 0) -> None:
    """So many days pass; then what is due goes."""
    exit_.clock.advance(days * DAY_MS / 1000)
    await Retention(exit_.store, exit_.parts.services.terms, exit_.settings.meter, exit_.clock).sweep(asyncio.Event())


async def shown(exit_: ExitUnderTest, node: str = AMS) -> list[str]:
    async with exit_.store.read() as db:
        found = await fleet_fold.of_account(db, "acc_1", node, (2**53, ""), 999, live=False)
    return [each.session_id for each in found]


async def billed(exit_: ExitUnderTest) -> list[str]:
    async with exit_.store.read() as db:
        return [each.line.session_id for each in await fleet_lines.of_account(db, "acc_1", MONTH)]


async def sums(exit_: ExitUnderTest) -> dict[str, MonthSums]:
    async with exit_.store.read() as db:
        return await fleet_fold.months(db, AMS)


async def said(exit_: ExitUnderTest, session_id: str) -> SessionReport:
    async with exit_.store.read() as db:
        (found,) = await fleet_fold.by_session(db, session_id)
    return msgspec.json.decode(found.said, type=SessionReport)


@on_exit(KEPT)
async def test_what_was_told_is_forgotten_as_what_is_own(exit_: ExitUnderTest) -> None:
    """Sessions leave lists once those that began then have ended for so long, lines when all of a session's did. The
    sums by which exits find what a hub lacks stay, and what comes again is forgotten again."""
    now = exit_.clock.now().wall_ms
    told = ("ses_1", report(now, now + DAY_MS)), ("ses_2", report(now, now + DAY_MS, paid=False))
    later = "ses_3", report(now + 10 * DAY_MS, now + 11 * DAY_MS)
    await fold(exit_, AMS, *told, later)
    before = await sums(exit_)
    await sweep(exit_, 120)  # retention, and the longest that a session may last
    assert sorted(await shown(exit_)) == ["ses_1", "ses_2", "ses_3"]
    await sweep(exit_, 1)
    assert await shown(exit_) == ["ses_3"]
    assert await billed(exit_) == ["ses_1", "ses_3"]
    lines = told[0][1].lines
    bare = SessionReport(3, "ab", 0, 7, "cd", now, 20, 30, 1000)
    assert await said(exit_, "ses_1") == msgspec.structs.replace(bare, account_id="acc_1", lines=lines)
    assert await said(exit_, "ses_2") == bare

    await sweep(exit_, 280)
    assert await billed(exit_) == ["ses_1", "ses_3"]
    await sweep(exit_, 1)
    assert await billed(exit_) == ["ses_3"]
    assert await said(exit_, "ses_1") == bare
    assert await sums(exit_) == before

    await fold(exit_, AMS, *told)  # the stream is read from its beginning
    assert await sums(exit_) == before
    await sweep(exit_)
    assert await billed(exit_) == ["ses_3"]
    assert [await said(exit_, each) for each in ("ses_1", "ses_2")] == [bare, bare]
    assert await sums(exit_) == before


@on_exit(KEPT)
async def test_a_session_that_has_not_ended_is_billed(exit_: ExitUnderTest) -> None:
    """All its lines stay, also of months that are long over; another exit's of the same id is none of its business."""
    now = exit_.clock.now().wall_ms
    running = report(now, None)
    first = msgspec.structs.replace(running.lines[0], month="2026-08", ended_at=now)
    await fold(exit_, AMS, ("ses_1", msgspec.structs.replace(running, lines=(first, *running.lines))))
    await fold(exit_, SIN, ("ses_1", report(now, now + DAY_MS)))
    await sweep(exit_, 500)
    assert exit_.rows("SELECT node, month FROM fleet_lines ORDER BY month") == [(AMS, "2026-08"), (AMS, MONTH)]


@on_exit(KEPT)
async def test_it_goes_in_pieces(exit_: ExitUnderTest) -> None:
    """However much is due, and where other lines are in between."""
    now = exit_.clock.now().wall_ms
    many = [(f"ses_{n:04}", report(now + n, now + n + 1)) for n in range(2 * max(SESSIONS_A_PIECE, LINES_A_PIECE) + 1)]
    await fold(exit_, AMS, *many, ("ses_live", report(now, None)))
    await sweep(exit_, 500)
    assert await shown(exit_) == []
    assert await billed(exit_) == ["ses_live"]


@on_exit(KEPT)
async def test_a_host_in_no_fleet_looks_at_nothing(exit_: ExitUnderTest) -> None:
    """It has no index for it; what was told while it was a hub stays as it is."""
    now = exit_.clock.now().wall_ms
    await fold(exit_, AMS, ("ses_1", report(now, now + DAY_MS)))
    async with exit_.store.write() as db:
        await fleet_reports.end_reporting(db)
    statements: list[str] = []
    async with exit_.store.read() as db:
        await db.set_trace_callback(statements.append)
        await sweep(exit_, 500)
        await db.set_trace_callback(None)  # type: ignore[arg-type]  # to end it
    assert exit_.rows("SELECT count(*) FROM fleet_lines") == [(1,)]
    assert statements
    assert not [each for each in statements if "fleet_lines" in each or "fleet_sessions" in each]
