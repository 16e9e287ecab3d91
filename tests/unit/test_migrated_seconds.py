"""Session time of a store of the version before only time counted in which a tunnel can carry."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from appliance.domain import accounting
from appliance.domain.clock import Moment
from appliance.store import migration
from appliance.store.database import Store
from appliance.store.queries import node as node_row
from appliance.store.queries import sessions

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.domain.entities import Session

SEVENTH = """
UPDATE node SET beat_boot_id = 'now', beat_boot_ms = 500000, beat_wall_ms = 9;
INSERT INTO accounts (id, name, tier, created_at) VALUES ('acc_1', 'ada', 'free', 1);
INSERT INTO sessions (id, account_id, tier, region, public_ip, public_key, address_offset, ipv6, state, created_at,
    expires_at, quiet_since_ms, quiet_boot_id, reason)
VALUES
    ('ses_2', 'acc_1', 'free', 'f', '::1', randomblob(32), 2, 1, 'live', 1, 2, 0, '', NULL),
    ('ses_3', 'acc_1', 'free', 'f', '::1', randomblob(32), 3, 1, 'live', 1, 2, 0, '', NULL),
    ('ses_4', 'acc_1', 'free', 'f', '::1', randomblob(32), 4, 1, 'closing', 1, 2, 0, '', 'admin'),
    ('ses_5', 'acc_1', 'free', 'f', '::1', randomblob(32), 5, 1, 'live', 1, 2, 0, '', NULL),
    ('ses_6', 'acc_1', 'free', 'f', '::1', randomblob(32), 6, 1, 'live', 1, 2, 0, '', NULL),
    ('ses_7', 'acc_1', 'free', 'f', '::1', randomblob(32), 7, 1, 'live', 1, 2, 0, '', NULL);
INSERT INTO peers (address_offset, bytes_in, bytes_out, last_handshake_at, handshake_seen_ns, counted_ms,
    counted_until_ms, counted_boot_id, quiet_since_ms, quiet_boot_id)
VALUES
    -- In the heartbeat's boot: never a handshake; one long ago; one just before the heartbeat.
    (2, 0, 0, NULL, 0, 7000, 100000, 'now', 90000, NULL),
    (3, 0, 0, 1, 1, 7000, 100000, 'now', 90000, NULL),
    (4, 0, 0, 1, 1, 7000, 480000, 'now', 480000, NULL),
    -- In the one before: counted up to its last heartbeat when the server starts; and its last handshake there.
    (5, 0, 0, NULL, 0, 7000, 100000, 'before', 90000, NULL),
    (6, 0, 0, 1, 1, 7000, 100000, 'before', 90000, NULL),
    -- Counted in this boot, its last handshake in the one before.
    (7, 0, 0, 1, 1, 7000, 490000, 'now', 490000, 'before');
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of the seventh version."""
    path = tmp_path / "store.sqlite"
    with closing(sqlite3.connect(path)) as db, db:
        for _, script in migration.migrations()[:7]:
            db.executescript(script)
        db.executescript(f"PRAGMA user_version = 7; PRAGMA application_id = {migration.APPLICATION_ID}; {SEVENTH}")
    return path


def test_what_had_passed_before_only_handshakes_counted_still_counts(path: Path) -> None:
    """A store of the version in which all of a session's time counted: what is counted stays, what had passed up to the
    last heartbeat still counts, and from there on what the last handshake of this boot allows."""

    async def read() -> tuple[list[Session], Moment]:
        store = await Store.open(path)
        try:
            async with store.read() as db:
                return await sessions.unfinished(db), (await node_row.read(db)).heartbeat
        finally:
            await store.close()

    found, beat = asyncio.run(read())
    assert {s.counted_ms for s in found} == {7000}
    assert [(s.counted_until_ms, s.counted_boot_id) for s in found] == [
        *[(100_000, "now"), (100_000, "now"), (480_000, "now")],
        *[(100_000, "before"), (100_000, "before"), (490_000, "now")],
    ]
    hour = Moment(beat.wall_ms + 3_600_000, beat.boot_ms + 3_600_000, "now")
    up_to_the_heartbeat = [400_000, 400_000, 20_000, 0, 0, 10_000]
    assert [accounting.elapsed_ms(s, beat) for s in found] == up_to_the_heartbeat
    assert [accounting.elapsed_ms(s, hour) for s in found] == [400_000, 400_000, 180_000, 0, 0, 10_000]


def test_what_had_passed_up_to_the_heartbeat_before_a_reboot(path: Path) -> None:
    """The same where the store was last used in the boot before: the next start counts up to its heartbeat."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE node SET beat_boot_id = 'before'")

    async def read() -> list[int]:
        store = await Store.open(path)
        try:
            async with store.read() as db:
                beat, found = (await node_row.read(db)).heartbeat, await sessions.unfinished(db)
                readings = accounting.uncounted(found, beat, Moment(10**9, 5_000, "next"))
                return [r.amount.time_ms for r in readings if r.after.counted_boot_id == "before"]
        finally:
            await store.close()

    assert asyncio.run(read()) == [400_000, 400_000]
