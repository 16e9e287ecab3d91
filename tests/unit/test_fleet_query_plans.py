"""Queries of reporting and folding cost what they find, not what is kept."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from appliance.domain.windows import Windows
from appliance.store.database import Store
from appliance.store.queries import (
    fleet_fold,
    fleet_lines,
    fleet_lives,
    fleet_moved,
    fleet_reports,
    fleet_retention,
    fleet_windows,
    invoices,
    sessions,
)
from appliance.store.queries.fleet_reports import Acknowledged, NextEpoch, ReportRow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import aiosqlite

ROW = ReportRow("ses_1", 1, 1, 0, 0, 0, 0, "", None, 0, 0, 0, 0, "")
# What has few rows: one, or one a month, or those that are to be sent.
SMALL = {
    "SCAN fleet_reporting",
    "SCAN sqlite_schema",
    "SCAN fleet_report_months",
    "SCAN node",
    "SCAN fleet_reports USING INDEX fleet_reports_unsent",
    "SCAN sessions USING INDEX sessions_unfinished",
}
QUERIES: dict[str, Callable[[aiosqlite.Connection], Awaitable[object]]] = {
    "beginning": fleet_reports.begin_reporting,
    "sessions of before": lambda db: fleet_reports.note_older(db, 5),
    "what moved": fleet_moved.found,
    "noting it": lambda db: fleet_moved.note(db, ["ses_1"]),
    "what is to be sent": lambda db: fleet_reports.unsent(db, 5),
    "how much that is": fleet_reports.count_unsent,
    "rows": lambda db: fleet_reports.by_ids(db, ["ses_1"]),
    "what was taken over": lambda db: fleet_reports.adopted(db, ["ses_1"]),
    "lives": lambda db: fleet_lives.of_sessions(db, ["ses_1"]),
    "lives that begin": lambda db: fleet_lives.begin(db, ["ses_1"]),
    "lives of another store": lambda db: fleet_lives.take_over(db, {"ses_1": "a"}),
    "sessions with peers": lambda db: fleet_lives.unfinished(db, ["ses_1"]),
    "figures": lambda db: fleet_reports.put_figures(db, [ROW]),
    "what was acknowledged": lambda db: fleet_reports.acknowledge(
        db, [Acknowledged("ses_1", 1, "", 0)], {"ses_1": "2026-11"}
    ),
    "a month again": lambda db: fleet_reports.send_month_again(db, "2026-11"),
    "epochs": lambda db: fleet_reports.put_epochs(db, [NextEpoch("ses_1", 1, "", 1, None)]),
    "epochs of all": fleet_reports.begin_epochs,
    "what was said": lambda db: fleet_fold.said_of(db, "nod_1", ["ses_1"]),
    "what was said after a batch": lambda db: fleet_fold.said_after_batch(db, "nod_1", 1, "", 5),
    "what was said of a month": lambda db: fleet_fold.said_of_month(db, "nod_1", "2026-11", "", 5),
    "a session": lambda db: fleet_fold.by_session(db, "ses_1"),
    "an account's": lambda db: fleet_fold.of_account(db, "acc_1", "nod_1", (5, ""), 5, live=False),
    "an account's live ones": lambda db: fleet_fold.of_account(db, "acc_1", "nod_1", (5, ""), 5, live=True),
    "an account's here": lambda db: sessions.page_by_time(db, "acc_1", live=False, before=(5, ""), limit=5),
    "an account's live ones here": lambda db: sessions.page_by_time(db, "acc_1", live=True, before=None, limit=5),
    "lines": lambda db: fleet_lines.put(db, "nod_1", {"ses_1": []}),
    "an invoice's lines": lambda db: fleet_lines.of_account(db, "acc_1", "2026-11"),
    "sessions to forget": lambda db: fleet_retention.created_before(db, 5, 5),
    "forgetting them": lambda db: fleet_retention.forget_sessions(db, [fleet_retention.ToldSession("ses_1", "nod_1")]),
    "lines that are over": lambda db: fleet_retention.lines_ended_before(db, 5, fleet_retention.FIRST, 5),
    "deleting them": lambda db: fleet_retention.delete_lines(db, [fleet_retention.ToldSession("ses_1", "nod_1")], 5),
    "windows": lambda db: fleet_windows.put(db, "nod_1", {"acc_1": (1, Windows())}),
    "reported windows": lambda db: fleet_windows.of_account(db, "acc_1"),
    "up to when all is counted": fleet_moved.counted_until,
    "a mark": lambda db: fleet_fold.note_upto(db, "nod_1", 1, 1),
    "accounts of lines": lambda db: invoices.accounts_of(db, ["ses_1"]),
    "months": lambda db: fleet_fold.months(db, "nod_1"),
}


def plan(path: Path, query: Callable[[aiosqlite.Connection], Awaitable[object]]) -> set[str]:
    seen: list[str] = []

    async def run() -> None:
        store = await Store.open(path)
        try:
            async with store.write() as db:
                await fleet_reports.begin_reporting(db)
                await db.set_trace_callback(seen.append)
                await query(db)
                await db.set_trace_callback(None)  # type: ignore[arg-type]  # to end it
        finally:
            await store.close()

    asyncio.run(run())
    statements = [s for s in seen if not s.startswith(("--", "BEGIN", "COMMIT")) and "TRIGGER" not in s]
    assert statements
    with closing(sqlite3.connect(path)) as db:
        return {str(row[3]) for s in statements for row in db.execute(f"EXPLAIN QUERY PLAN {s}")}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_no_query_reads_all_that_is_kept(
    tmp_path: Path, query: Callable[[aiosqlite.Connection], Awaitable[object]]
) -> None:
    """Each statement reads by an index, or what is small however long the fleet has lived."""
    steps = plan(tmp_path / "store.sqlite", query)
    scans = {step for step in steps if step.startswith("SCAN") and "VIRTUAL TABLE" not in step and "(sub" not in step}
    assert scans <= SMALL


@pytest.mark.parametrize("name", [name for name in QUERIES if name.startswith("an account's")])
def test_a_page_of_an_account_costs_what_it_shows(tmp_path: Path, name: str) -> None:
    """It begins at its place in an index that has the page's order, or reads the sessions that have not ended alone."""
    steps = plan(tmp_path / "store.sqlite", QUERIES[name])
    at_place = any("(created_at," in step and ")<(?,?)" in step for step in steps)
    assert at_place or any("sessions_unfinished_of" in step for step in steps), steps
