"""Migrations of what hubs have: what was folded before stays, and is found by what is asked since."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from appliance.store import migration
from appliance.store.database import Store
from appliance.store.queries import fleet_fold, fleet_lines

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.domain.fleet_invoice import ExitLine

WITH_FOLDS = 11  # the version in which hubs began to fold


@pytest.mark.parametrize("version", range(WITH_FOLDS, 16))
def test_lines_of_older_versions_are_in_their_accounts_invoice(tmp_path: Path, version: int) -> None:
    """By the account of their session; a mark that was told before holds until the next one."""
    path = tmp_path / "store.sqlite"
    with closing(sqlite3.connect(path)) as db, db:
        for _, script in migration.migrations()[:version]:
            db.executescript(script)
        db.executescript(
            f"""
            PRAGMA user_version = {version}; PRAGMA application_id = {migration.APPLICATION_ID};
            INSERT INTO fleet_nodes VALUES ('nod_1', 7, 'ab', 9000);
            INSERT INTO fleet_sessions VALUES
                ('ses_1', 'nod_1', 0, 'ab', 3, 7, 'acc_1', 5, 'live', 1, 2, 3, '[]'),
                ('ses_1', 'nod_2', 0, 'ab', 3, 7, 'acc_2', 5, 'live', 1, 2, 3, '[]');
            INSERT INTO fleet_lines VALUES
                ('ses_1', 'nod_1', '2026-11', 5, NULL, 60, 1, 2, 'eur', 4, 5, 6, 7),
                ('ses_2', 'nod_1', '2026-11', 5, NULL, 60, 1, 2, 'eur', 4, 5, 6, 7);
            """  # noqa: S608 - a constant
        )

    async def read() -> tuple[list[ExitLine], dict[str, int]]:
        store = await Store.open(path)
        try:
            async with store.write() as db:
                lines = await fleet_lines.of_account(db, "acc_1", "2026-11")
                await fleet_fold.note_upto(db, "nod_1", 8, 8000)
                return lines, await fleet_fold.reported_until(db)
        finally:
            await store.close()

    (line,), upto = asyncio.run(read())
    assert (line.node, line.line.session_id, line.line.charge.time_millicents) == ("nod_1", "ses_1", 6)
    assert upto == {"nod_1": 8000}
