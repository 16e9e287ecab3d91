"""The file of lives: what a store that went back learns from it, and what happens where it cannot be written."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from appliance.domain.entities import Account, Baseline
from appliance.domain.tiers import Tier
from appliance.store import migration, peer_lives
from appliance.store.database import Store
from appliance.store.peer_lives import PeerLives
from appliance.store.queries import accounts, fleet_lives, fleet_reports, peers, sessions
from tests.support.unit.a_session import A_SESSION

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_what_is_noted_is_read(tmp_path: Path) -> None:
    """The last mark of each session, in the boot in which it was noted; a line that is cut off is none."""
    path = tmp_path / "peer-lives"
    lives = PeerLives(path, "boot")
    assert lives.read() == {}
    for session_id, mark in (("ses_1", "a"), ("ses_2", "b"), ("ses_1", "c")):
        lives.note(session_id, mark)
    assert lives.read() == {"ses_1": "c", "ses_2": "b"}
    assert PeerLives(path, "next").read() == {}
    path.write_text(path.read_text() + "ses_3")
    assert lives.read() == {"ses_1": "c", "ses_2": "b"}
    lives.put({"ses_4": "d"})
    assert lives.read() == {"ses_4": "d"}
    lives.put({})
    assert not path.exists()
    path.write_bytes(bytes([255]))
    assert lives.read() == {}


def test_what_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    PeerLives(tmp_path / "no folder" / "peer-lives", "boot").note("ses_1", "a")
    assert "cannot note which peers were put again" in caplog.text


OLDER = """
INSERT INTO accounts (id, name, tier, created_at) VALUES ('acc_1', 'ada', 'free', 1);
INSERT INTO sessions (id, account_id, tier, region, public_ip, public_key, address_offset, ipv6, state, created_at,
    expires_at, quiet_since_ms, quiet_boot_id)
VALUES ('ses_1', 'acc_1', 'free', 'f', '::1', zeroblob(32), 2, 1, 'live', 1, 2, 0, 'b');
INSERT INTO peers (address_offset, bytes_in, bytes_out, handshake_seen_ns, counted_ms, counted_until_ms,
    counted_boot_id, quiet_since_ms, ifindex, rx_bytes, tx_bytes)
VALUES (2, 50, 0, 0, 0, 0, 'boot', 0, 3, 20, 0);
INSERT INTO fleet_reporting (only_row, batch, mark) VALUES (1, 7, 'x');
INSERT INTO fleet_reports (session_id, created_at) VALUES ('ses_1', 1);
INSERT INTO fleet_lives VALUES ('ses_1', 1, 'boot', 3, 30, 0);
CREATE TRIGGER fleet_session_opened AFTER INSERT ON sessions BEGIN
    SELECT 1;
END;
CREATE TRIGGER fleet_life_ended AFTER UPDATE ON peers BEGIN
    INSERT INTO fleet_lives VALUES ('ses_1', 9, 'boot', 1, 2, 3);
END;
PRAGMA user_version = 13;
"""


def test_a_store_of_a_fleet_of_the_version_before(tmp_path: Path) -> None:
    """Its lives have no marks, and a life that begins now has one: its triggers are today's."""
    path = tmp_path / "store.sqlite"
    with closing(sqlite3.connect(path)) as db:
        for _, sql in migration.migrations()[:13]:
            db.executescript(sql)
        db.executescript(f"{OLDER} PRAGMA application_id = {migration.APPLICATION_ID};")

    async def story() -> None:
        store = await Store.open(path)
        await peer_lives.follow(store, tmp_path / "peer-lives", "boot")
        async with store.write() as db:
            await peers.put_baselines(db, [(2, Baseline("boot", 3, 5, 0))])
            lives = (await fleet_lives.of_sessions(db, ["ses_1"]))["ses_1"]
            state = await fleet_reports.state(db)
        assert [(life.rx_bytes, bool(life.mark)) for life in lives] == [(30, False), (20, False), (5, True)]
        assert PeerLives(tmp_path / "peer-lives", "boot").read() == {"ses_1": lives[-1].mark}
        assert state is not None
        assert (state.batch, state.acknowledged) == (7, 7)
        await store.close()

    asyncio.run(story())


def test_a_store_that_went_back_takes_over(tmp_path: Path) -> None:
    """The life that was noted last, none of which it has counted; a host in no fleet has no file."""
    path, copy, lives = tmp_path / "store.sqlite", tmp_path / "copy.sqlite", tmp_path / "peer-lives"

    async def put_again(store: Store) -> str:
        async with store.write() as db:
            await fleet_lives.begin(db, ["ses_1"])
            (row,) = await db.execute_fetchall("SELECT life FROM fleet_reports")
        return str(row[0])

    async def story() -> None:
        store = await Store.open(path)
        async with store.write() as db:  # what a backup that was restored as another node's has
            await db.execute("INSERT INTO fleet_reporting (only_row) VALUES (1)")
        await peer_lives.follow(store, lives, "boot")
        async with store.write() as db:
            assert not await fleet_reports.is_noting(db)
            await accounts.insert(db, Account("acc_1", "ada", Tier.FREE, False, 1))
            await sessions.insert(db, [(A_SESSION, None)])
            await fleet_lives.begin(db, ["ses_1"])
            assert await fleet_reports.begin_reporting(db)
            await peer_lives.begin(db, lives, "boot")
        with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
            source.backup(target)
        source.close()
        target.close()
        assert not lives.exists()
        mark = await put_again(store)
        await store.close()
        older = await Store.open(copy)
        await peer_lives.follow(older, lives, "boot")
        async with older.read() as db:
            assert [row[0] for row in await db.execute_fetchall("SELECT life FROM fleet_reports")] == [mark]
        later = await put_again(older)
        assert PeerLives(lives, "boot").read() == {"ses_1": later}
        await older.close()

    asyncio.run(story())
