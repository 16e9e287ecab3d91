"""Commands of a newer version, while a server of an older one runs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from appliance.store import migration

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cli.command_line import CommandLine

OLDER = migration.migrations()[-2][0]


@pytest.fixture
def older(wga: CommandLine) -> CommandLine:
    """Its store is of the version before the newest."""
    for name in ("", "-wal", "-shm"):
        wga.state.store.with_name(wga.state.store.name + name).unlink(missing_ok=True)
    with closing(sqlite3.connect(wga.state.store)) as db:
        for number, sql in migration.migrations()[:OLDER]:
            db.executescript(f"{sql}; PRAGMA user_version = {number};")
        db.execute(f"PRAGMA application_id = {migration.APPLICATION_ID:d}")
    return wga


def version(store: Path) -> int:
    with closing(sqlite3.connect(store)) as db:
        found: int = db.execute("PRAGMA user_version").fetchone()[0]
    return found


@pytest.mark.parametrize("command", [("session", "list"), ("account", "create", "ada"), ("init",)], ids=" ".join)
def test_the_store_stays_the_servers(older: CommandLine, command: tuple[str, ...]) -> None:
    """The command is refused, reads and writes alike, and says what to do: the server could not use the store after it.
    Once the server has ended, the store is migrated."""
    with older.state.serving():
        done = older(*command)
    assert (done.status, version(older.state.store)) == (1, OLDER)
    assert "restart the server first" in done.err
    older.do(*command)
    assert version(older.state.store) > OLDER
