"""Migrations: applied in order, each whole or not at all; foreign and newer files are refused untouched."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import aiosqlite
import pytest

from appliance.domain.clock import Moment
from appliance.domain.entities import Baseline
from appliance.domain.errors import StoreError
from appliance.store import migration
from appliance.store.database import Store
from appliance.store.queries import node as node_row
from appliance.store.queries import peers, sessions

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.domain.entities import Session

NEWEST = migration.migrations()[-1][0]


def opened(path: Path) -> None:
    async def run() -> None:
        store = await Store.open(path)
        await store.close()

    asyncio.run(run())


def shape(path: Path) -> tuple[list[tuple[str, ...]], int, int]:
    """The whole schema, its version, and whose file it is."""
    with closing(sqlite3.connect(path)) as db:
        tables = db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
        return tables, *db.execute("PRAGMA user_version").fetchone(), *db.execute("PRAGMA application_id").fetchone()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


def test_versions_count_from_1_without_a_gap() -> None:
    """Versions count from 1 without a gap, and no two files share one."""
    assert [number for number, _ in migration.migrations()] == list(range(1, NEWEST + 1))


def test_opening_an_up_to_date_store_changes_nothing(path: Path) -> None:
    """Opening a store that is up to date changes nothing."""
    opened(path)
    before = shape(path)
    assert before[1:] == (NEWEST, migration.APPLICATION_ID)
    opened(path)
    assert shape(path) == before


def test_the_oldest_store_is_migrated_with_its_rows(path: Path) -> None:
    """A store of the first version, with all kinds of rows, becomes today's, and keeps them."""
    _, first = migration.migrations()[0]
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(first)
        db.executescript(
            f"""
            PRAGMA user_version = 1; PRAGMA application_id = {migration.APPLICATION_ID};
            UPDATE node SET drained = 1, requested = 3, applied = 2, interface = 'wga0', subnet = '10.101.0.0/24',
                subnet6 = '', public_key = zeroblob(32);
            INSERT INTO accounts VALUES ('acc_1', 'ada', 'free', 0, 1, NULL), ('acc_2', 'ada', 'paid', 1, 1, 2);
            INSERT INTO tokens VALUES ('tok_1', 'acc_1', randomblob(32), 'phone', 1, 2, 3);
            INSERT INTO sessions (id, account_id, tier, region, public_ip, public_key, address_offset, ipv6, state,
                created_at, expires_at, bytes_in, quiet_since_ms, quiet_boot_id, reason, terminated_at)
            VALUES ('ses_1', 'acc_1', 'free', 'f', '::1', zeroblob(32), 2, 1, 'live', 1, 2, 7, 0, 'b', NULL, NULL),
                ('ses_2', 'acc_1', 'free', 'f', '::1', zeroblob(32), 2, 1, 'terminated', 1, 2, 8, 0, 'b', 'idle', 9);
            INSERT INTO sessions (id, account_id, tier, region, public_ip, public_key, address_offset, ipv6, state,
                created_at, expires_at, bytes_in, quiet_since_ms, quiet_boot_id, reason, note, terminated_at)
            VALUES ('ses_3', 'acc_1', 'free', 'f', '::1', zeroblob(32), 2, 1, 'terminated', 1, 2, 9, 0, 'b', 'admin',
                'spams', 9);
            INSERT INTO baselines SELECT public_key, 'b', 4, 5, 6 FROM sessions WHERE id = 'ses_1';
            """  # noqa: S608 - a constant
        )
    opened(path)
    fresh = path.with_name("fresh.sqlite")
    opened(fresh)
    assert shape(path) == shape(fresh)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT bytes_in, quiet_boot_id FROM peers").fetchall() == [(7, "b")]
        assert db.execute("SELECT id, state, bytes_in FROM sessions ORDER BY number").fetchall() == [
            ("ses_1", "live", 7),
            ("ses_2", "terminated", 8),
            ("ses_3", "terminated", 9),
        ]
        # A note was the operators' own: no client is told it afterwards.
        assert db.execute("SELECT note, told FROM sessions WHERE id = 'ses_3'").fetchall() == [("spams", "")]
        assert db.execute("SELECT drained, requested, applied FROM node").fetchall() == [(1, 3, 2)]
        for table, rows in (("accounts", 2), ("tokens", 1), ("baselines", 1)):
            assert len(db.execute(f"SELECT * FROM {table}").fetchall()) == rows  # noqa: S608 - names from above
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_heartbeat_is_what_is_known_of_the_time(path: Path) -> None:
    """A store of the version before clocks were doubted keeps its heartbeat; nothing is accepted in it."""
    with closing(sqlite3.connect(path)) as db, db:
        for _, script in migration.migrations()[:4]:
            db.executescript(script)
        db.executescript(
            f"""
            PRAGMA user_version = 4; PRAGMA application_id = {migration.APPLICATION_ID};
            UPDATE node SET requested = 2, applied = 2, beat_boot_id = 'b', beat_boot_ms = 7, beat_wall_ms = 9;
            """  # noqa: S608 - a constant
        )

    beat = Moment(9, 7, "b")

    async def known() -> object:
        store = await Store.open(path)
        try:
            async with store.read() as db:
                row = await node_row.read(db)
                return row.accepted, row.known(beat), row.heartbeat
        finally:
            await store.close()

    assert asyncio.run(known()) == (None, beat, beat)


def test_a_continued_window_begins_what_counts(path: Path) -> None:
    """A window that went on from the one before begins what counts; another one counts from ever."""
    (_, first), (_, second), *_ = migration.migrations()
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(first)
        db.executescript(second)
        db.executescript(
            f"""
            PRAGMA user_version = 2; PRAGMA application_id = {migration.APPLICATION_ID};
            INSERT INTO accounts (id, name, tier, disabled, created_at, bytes_opened_at, bytes_used, bytes_continued,
                time_opened_at, time_used_ms, time_continued)
            VALUES ('acc_1', 'ada', 'free', 0, 1, 1000, 5, 1, 2000, 6, 0), ('acc_2', 'bob', 'free', 0, 1, NULL, 0, 0,
                NULL, 0, 0);
            """  # noqa: S608 - a constant
        )
    opened(path)
    with closing(sqlite3.connect(path)) as db:
        columns = "bytes_opened_at, bytes_used, bytes_since, time_opened_at, time_used_ms, time_since"
        assert db.execute(f"SELECT {columns} FROM accounts ORDER BY id").fetchall() == [  # noqa: S608 - a constant
            (1000, 5, 1000, 2000, 6, 0),
            (None, 0, 0, None, 0, 0),
        ]


@pytest.mark.parametrize("version", range(1, NEWEST))
def test_a_store_of_each_older_version_becomes_todays(path: Path, version: int) -> None:
    """With sessions, and invoices where that version had them: all is kept, and the schema is today's."""
    with closing(sqlite3.connect(path)) as db, db:
        for number, sql in migration.migrations()[:version]:
            db.executescript(sql)
            if number == 2:
                db.executescript(
                    """
                    INSERT INTO accounts (id, name, tier, created_at) VALUES ('acc_2', 'bob', 'paid', 1);
                    INSERT INTO usage_days VALUES ('ses_2', '1970-01-01', 1, 2, 3);
                    INSERT INTO invoice_lines (session_id, month, account_id, started_at, ended_at, seconds, bytes_in,
                        bytes_out) VALUES ('ses_2', '1970-01', 'acc_2', 1, 9, 0, 2, 3),
                        ('ses_1', '1970-01', 'acc_2', 1, NULL, 0, 2, 3);
                    """
                )
            if number == 1:
                db.executescript(
                    """
                    INSERT INTO accounts (id, name, tier, created_at) VALUES ('acc_1', 'ada', 'free', 1);
                    INSERT INTO sessions (id, account_id, tier, region, public_ip, public_key, address_offset, ipv6,
                        state, created_at, expires_at, quiet_since_ms, quiet_boot_id, reason, terminated_at)
                    VALUES ('ses_1', 'acc_1', 'free', 'f', '::1', zeroblob(32), 2, 1, 'live', 1, 2, 0, 'b', NULL,
                        NULL),
                        ('ses_2', 'acc_1', 'free', 'f', '::1', zeroblob(32), 2, 1, 'terminated', 1, 2, 0, 'b', 'idle',
                        9);
                    """
                )
        db.executescript(f"PRAGMA user_version = {version}; PRAGMA application_id = {migration.APPLICATION_ID};")
    opened(path)
    fresh = path.with_name("fresh.sqlite")
    opened(fresh)
    assert shape(path) == shape(fresh)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT id FROM sessions ORDER BY number").fetchall() == [("ses_1",), ("ses_2",)]
        lines = db.execute("SELECT session_id, ended_at FROM invoice_lines ORDER BY session_id").fetchall()
        assert lines == ([("ses_1", None), ("ses_2", 9)] if version >= 2 else [])
        assert len(db.execute("SELECT * FROM usage_days").fetchall()) == len(lines) // 2
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


FOREIGN = {
    "newer": (
        f"PRAGMA user_version = {NEWEST + 1}; PRAGMA application_id = {migration.APPLICATION_ID}",
        "newer wg-appl",
    ),
    "another program's": ("PRAGMA application_id = 7", "database of another program"),
    "another program's version": ("PRAGMA user_version = 1", "database of another program"),
}


@pytest.mark.parametrize(("pragmas", "message"), FOREIGN.values(), ids=FOREIGN)
def test_newer_and_foreign_stores_are_refused_and_kept(path: Path, pragmas: str, message: str) -> None:
    """A newer store and another program's are refused by name, and left as they were."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"CREATE TABLE theirs (x); {pragmas};")
    before = shape(path)
    with pytest.raises(StoreError, match=message) as refusal:
        opened(path)
    assert str(path) in str(refusal.value)
    assert shape(path) == before


def test_two_processes_make_a_new_store_once(path: Path) -> None:
    """Two processes that open a new store at the same time both find it made, once."""

    async def run() -> None:
        stores = await asyncio.gather(*(Store.open(path) for _ in range(4)))
        for store in stores:
            await store.close()

    asyncio.run(run())
    assert shape(path)[1] == NEWEST


def test_migrated_by_another_in_between(path: Path) -> None:
    """A process that read the schema before another migrated the store goes on from there."""

    async def run() -> None:
        async with (
            aiosqlite.connect(path, isolation_level=None) as one,
            aiosqlite.connect(path, isolation_level=None) as other,
        ):
            for number, sql in migration.migrations():
                await one.execute_fetchall("SELECT * FROM sqlite_schema")
                await migration._apply(other if number % 2 else one, number, sql)

    asyncio.run(run())
    assert shape(path)[1] == NEWEST


def test_migrations_are_applied_in_order() -> None:
    """The tenth comes after the ninth, and an installation that lost one says which."""
    found = [(number, "SELECT 1;") for number in (10, *range(1, 10))]
    assert [number for number, _ in migration.in_order(found)] == [*range(1, 11)]
    with pytest.raises(StoreError, match="lacks the store's migration 3"):
        migration.in_order(pair for pair in found if pair[0] != 3)


SCRIPTS = {
    "one": ("SELECT 1;\n", ["SELECT 1;\n"]),
    "none": ("-- nothing\n\n", []),
    "several lines": ("SELECT 1,\n  2;\n\nSELECT 3;\n", ["SELECT 1,\n  2;\n", "\nSELECT 3;\n"]),
    "semicolon in text": ("SELECT ';\n';\n", ["SELECT ';\n';\n"]),
    "semicolon in a remark": ("-- a; b\nSELECT 1;\n", ["-- a; b\nSELECT 1;\n"]),
    "trigger": (
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN\n  SELECT 1;\n  SELECT 2;\nEND;\n",
        ["CREATE TRIGGER t AFTER INSERT ON a BEGIN\n  SELECT 1;\n  SELECT 2;\nEND;\n"],
    ),
    "remark at the end": ("SELECT 1;\n-- done\n", ["SELECT 1;\n"]),
}


@pytest.mark.parametrize(("script", "expected"), SCRIPTS.values(), ids=SCRIPTS)
def test_a_script_is_split_at_its_statements(script: str, expected: list[str]) -> None:
    """A script falls into its statements, and nowhere else."""
    assert list(migration.statements(script)) == expected


def test_a_truncated_script_is_refused() -> None:
    """A script that ends in the middle of a statement is found out."""
    with pytest.raises(StoreError, match="middle of a statement: SELECT 2"):
        list(migration.statements("SELECT 1;\nSELECT 2\n"))


SIXTH = """
INSERT INTO accounts (id, name, tier, created_at) VALUES ('acc_1', 'ada', 'free', 1);
INSERT INTO sessions (id, account_id, tier, region, public_ip, public_key, address_offset, ipv6, state, created_at,
    expires_at, bytes_in, bytes_out, last_handshake_at, handshake_seen_ns, quiet_since_ms, quiet_boot_id, counted_ms,
    counted_until_ms, counted_boot_id, reason, terminated_at)
VALUES
    ('ses_1', 'acc_1', 'free', 'f', '::1', zeroblob(32), 2, 1, 'terminated', 1, 2, 1, 2, 3, 4, 5, 'a', 6, 7, 'a',
        'replaced', 9),
    ('ses_2', 'acc_1', 'free', 'f', '::1', zeroblob(32), 2, 1, 'live', 1, 2, 11, 12, 13, 14, 15, 'a', 16, 17, 'b', NULL,
        NULL),
    ('ses_3', 'acc_1', 'free', 'f', '::1', randomblob(32), 3, 1, 'closing', 1, 2, 21, 22, NULL, 0, 25, 'b', 26, 27, 'b',
        'idle', NULL),
    ('ses_4', 'acc_1', 'free', 'f', '::1', randomblob(32), 4, 1, 'pending', 1, 2, 0, 0, NULL, 0, 5, 'b', 0, 0, '', NULL,
        NULL);
INSERT INTO baselines VALUES (zeroblob(32), 'a', 4, 5, 6);
"""


def test_figures_move_to_the_peers(path: Path) -> None:
    """Sessions of the version before figures were apart have the same figures, and the same baselines, as they had."""
    with closing(sqlite3.connect(path)) as db, db:
        for _, script in migration.migrations()[:6]:
            db.executescript(script)
        db.executescript(f"PRAGMA user_version = 6; PRAGMA application_id = {migration.APPLICATION_ID}; {SIXTH}")

    async def read() -> tuple[list[Session], dict[bytes, Baseline]]:
        store = await Store.open(path)
        try:
            async with store.read() as db:
                every = [await sessions.by_id(db, f"ses_{n}") for n in range(1, 5)]
                return [s for s in every if s is not None], dict([pair async for pair in peers.baselines(db)])
        finally:
            await store.close()

    found, baselines = asyncio.run(read())
    assert [
        (
            *(s.bytes_in, s.bytes_out, s.last_handshake_at, s.handshake_seen_ns, s.quiet_since_ms, s.quiet_boot_id),
            *(s.counted_ms, s.counted_until_ms, s.counted_boot_id),
        )
        for s in found
    ] == [
        (1, 2, 3, 4, 5, "a", 6, 7, "a"),
        (11, 12, 13, 14, 15, "a", 16, 17, "b"),
        (21, 22, None, 0, 25, "b", 26, 27, "b"),
        (0, 0, None, 0, 5, "b", 0, 0, ""),
    ]
    assert baselines == {bytes(32): Baseline("a", 4, 5, 6)}
