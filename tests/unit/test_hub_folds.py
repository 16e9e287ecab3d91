"""A hub lists what exits have reported of an account's sessions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from appliance.fleet.reports.fold import fold_reports
from appliance.fleet.reports.hub_folds import HubFolds
from appliance.fleet.reports.reports import SessionReport
from appliance.store.database import Store
from appliance.store.queries import fleet_reports

if TYPE_CHECKING:
    from pathlib import Path

NODES = ("nod_1", "nod_2", "nod_3")


def report(created_at: int, state: str) -> SessionReport:
    figures = {"bytes_in": 1, "bytes_out": 2, "ms": 3}
    facts = {"account_id": "acc_1", "tier": "paid", "region": "fra"}
    return SessionReport(1, "", 0, 1, "", created_at, **figures, state=state, **facts)


def test_a_page_has_the_exits_asked_for_and_those_that_left(tmp_path: Path) -> None:
    """By (created_at, id) over all of them, in pages; live ones alone if asked."""

    async def story() -> None:
        store = await Store.open(tmp_path / "store.sqlite")
        try:
            async with store.write() as db:
                await fleet_reports.begin_reporting(db)
                for at, node in enumerate(NODES):
                    states = ("live", "terminated", "terminated")
                    reports = [(f"ses_{at}{n}", report(10 * n + at, state)) for n, state in enumerate(states)]
                    await fold_reports(db, node, reports)
            folds = HubFolds(store, lambda node: node != "nod_3")  # which has left
            page = await folds.page("acc_1", ["nod_1"], live=False, before=None, limit=4)
            assert [s.id for s in page] == ["ses_22", "ses_02", "ses_21", "ses_01"]
            rest = await folds.page("acc_1", ["nod_1"], live=False, before=(page[-1].created_at, page[-1].id), limit=4)
            assert [s.id for s in rest] == ["ses_20", "ses_00"]
            live = await folds.page("acc_1", NODES[:2], live=True, before=None, limit=9)
            assert [s.id for s in live] == ["ses_20", "ses_10", "ses_00"]
            assert await folds.page("acc_2", NODES, live=False, before=None, limit=9) == []
        finally:
            await store.close()

    asyncio.run(story())
