"""The version with devices: what older stores had stays what it was, and sessions may end for more reasons."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from appliance.domain.entities import WORDS
from appliance.domain.errors import StoreError
from appliance.store import migration
from appliance.store.database import Store

if TYPE_CHECKING:
    from pathlib import Path

MIGRATIONS = migration.migrations()
DEVICES = next(number for number, sql in MIGRATIONS if "CREATE TABLE devices" in sql)
# Of a session's end, and of devices that are held: an account that is disabled ends its sessions as `admin`.
REASONS = WORDS - {"account_disabled"}

# What a store of each version may have had put into it, from that version on.
ROWS = {
    1: """
    INSERT INTO accounts (id, name, tier, disabled, created_at, deleted_at)
    VALUES ('acc_1', 'ada', 'paid', 0, 1, NULL), ('acc_2', 'bob', 'free', 1, 2, 3);
    INSERT INTO tokens VALUES ('tok_1', 'acc_1', zeroblob(32), 'laptop', 1, 2, 3);
    INSERT INTO sessions (id, account_id, tier, region, public_ip, public_key, address_offset, ipv6, state, created_at,
        expires_at, bytes_in, bytes_out, last_handshake_at, handshake_seen_ns, quiet_since_ms, quiet_boot_id, reason,
        note, terminated_at)
    VALUES
        ('ses_1', 'acc_1', 'paid', 'f', '::1', randomblob(32), 2, 1, 'live', 1, 2, 11, 12, 13, 14, 15, 'a',
            NULL, '', NULL),
        ('ses_2', 'acc_1', 'free', 'f', '::1', randomblob(32), 2, 0, 'terminated', 1, 2, 21, 22, NULL, 0, 25, 'a',
            'drained', '', 9),
        ('ses_3', 'acc_2', 'free', 'f', '::1', randomblob(32), 3, 1, 'closing', 1, 2, 31, 32, 33, 34, 35, 'b',
            'admin', 'it''s over', NULL),
        ('ses_4', 'acc_2', 'free', 'f', '::1', randomblob(32), 4, 1, 'pending', 1, 2, 0, 0, NULL, 0, 0, 'b',
            NULL, '', NULL);
    UPDATE node SET drained = 1, requested = 3, applied = 2;
    """,
    2: """
    UPDATE sessions SET counted_ms = 5, counted_until_ms = 6, counted_boot_id = 'a', currency = 'eur',
        millicents_per_minute = 7, millicents_per_gib = 8 WHERE tier = 'paid';
    INSERT INTO usage_days VALUES ('ses_1', '1970-01-01', 1, 2, 3);
    INSERT INTO invoice_lines VALUES ('ses_1', '1970-01', 'acc_1', 1, NULL, 2, 3, 4, 'eur', 5, 6, 7, 8);
    """,
    4: "UPDATE sessions SET token_id = 'tok_1', told = 'it''s over' WHERE id = 'ses_3';",
    DEVICES: """
    INSERT INTO devices (id, account_id, name, name_key, region, public_key, address_offset, ipv6, created_at, endpoint,
        bytes_in, bytes_out, counted_ms, last_handshake_at, handshake_seen_ns, ifindex, rx_bytes, tx_bytes,
        baseline_boot_id)
    VALUES ('dev_1', 'acc_1', 'phone', 'phone', 'f', randomblob(32), 7, 1, 1, '192.0.2.1:51820', 1, 2, 3, 4, 5, 6, 7, 8,
        'a');
    """,
}


def a_store(path: Path, version: int) -> None:
    """A store as a program of that version left it."""
    with closing(sqlite3.connect(path)) as db:
        for number, sql in MIGRATIONS[:version]:
            db.executescript(sql + ROWS.get(number, ""))
        db.executescript(f"PRAGMA user_version = {version}; PRAGMA application_id = {migration.APPLICATION_ID};")


def opened(path: Path) -> None:
    async def run() -> None:
        await (await Store.open(path)).close()

    asyncio.run(run())


Contents = dict[str, list[dict[str, object]]]


def contents(path: Path) -> Contents:
    """Every row of every table, by the names of its columns."""
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        tables = [row["name"] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {table: [dict(row) for row in db.execute(f"SELECT * FROM {table}")] for table in tables}  # noqa: S608


def test_devices_of_the_first_version_that_had_them(tmp_path: Path) -> None:
    """They stay what they were; no handshake of theirs has come to nothing yet, and no file is known to be outdated."""
    path = tmp_path / "store.sqlite"
    a_store(path, DEVICES)
    before = contents(path)
    opened(path)
    (old,), (new,) = before["devices"], contents(path)["devices"]
    assert new == {**old, "unfinished_rx": 0, "unfinished_tx": 0, "outdated": 0, "installed": 1}


@pytest.mark.parametrize("version", range(1, DEVICES))
def test_what_was_counted_stays(tmp_path: Path, version: int) -> None:
    """Of each older version, each value of each row is what it was, but for the baselines, which moved to the peers."""
    path = tmp_path / "store.sqlite"
    a_store(path, version)
    before = contents(path)
    opened(path)
    after = contents(path)
    for table in before.keys() - {"baselines"}:
        assert len(after[table]) >= len(before[table]) > 0, table
        for old, new in zip(before[table], after[table], strict=False):
            # Two columns have got another name, and another meaning.
            assert {
                name: value for name, value in old.items() if not name.endswith("_continued")
            }.items() <= new.items()
    assert after["devices"] == []
    assert all(row["device_id"] is None for row in after["sessions"])
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.mark.parametrize("version", range(DEVICES))
def test_sessions_end_for_all_reasons_there_are(tmp_path: Path, version: int) -> None:
    """The table admits every reason that a client may be told, and no other word, in a new store too."""
    path = tmp_path / "store.sqlite"
    a_store(path, version)
    opened(path)
    admitted = set()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = ON")
        if not version:
            db.executescript(ROWS[1])
        for word in (*WORDS, "lost", "", "Paused"):
            with suppress(sqlite3.IntegrityError):
                db.execute("UPDATE sessions SET reason = ? WHERE id = 'ses_2'", (word,))
                admitted.add(word)
        # The other checks of the table hold as before.
        for wrong in ("reason = NULL", "terminated_at = NULL", "state = 'gone'", "bytes_in = -1", "device_id = 'no'"):
            with pytest.raises(sqlite3.IntegrityError):
                db.execute(f"UPDATE sessions SET {wrong} WHERE id = 'ses_2'")  # noqa: S608 - from above
    assert admitted == REASONS


def test_a_process_that_knew_the_schema_takes_the_new_one(tmp_path: Path) -> None:
    """A connection that read the schema before another process migrated the store admits the new reasons."""
    path = tmp_path / "store.sqlite"
    a_store(path, DEVICES - 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("UPDATE sessions SET reason = 'paused' WHERE id = 'ses_2'")
        opened(path)
        db.execute("UPDATE sessions SET reason = 'paused' WHERE id = 'ses_2'")
        assert db.execute("PRAGMA writable_schema").fetchall() == [(0,)]


def test_a_table_of_another_text_is_left_alone(tmp_path: Path) -> None:
    """Where the sessions' table is not as it was made, the store stays of its version, with all that it has."""
    path = tmp_path / "store.sqlite"
    a_store(path, DEVICES - 1)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            """
            PRAGMA writable_schema = ON;
            UPDATE sqlite_schema SET sql = replace(sql, '''drained''', '"drained"') WHERE name = 'sessions';
            """
        )
    before = path.read_bytes()
    with pytest.raises(StoreError, match="CHECK constraint failed: times = 1"):
        opened(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchall() == [(DEVICES - 1,)]
        assert db.execute("SELECT name FROM sqlite_schema WHERE name IN ('devices', 'reasons_added')").fetchall() == []
    assert len(path.read_bytes()) == len(before)
