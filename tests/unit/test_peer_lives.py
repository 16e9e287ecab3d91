"""The file of lives: what a store that went back learns from it, and what happens where it cannot be written."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

from appliance.domain.entities import Account
from appliance.domain.tiers import Tier
from appliance.store import peer_lives
from appliance.store.database import Store
from appliance.store.peer_lives import PeerLives
from appliance.store.queries import accounts, fleet_lives, fleet_reports, sessions
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
        await peer_lives.follow(store, lives, "boot")
        async with store.write() as db:
            await accounts.insert(db, Account("acc_1", "ada", Tier.FREE, False, 1))
            await sessions.insert(db, [(A_SESSION, None)])
            await fleet_lives.begin(db, ["ses_1"])
            await fleet_reports.begin_reporting(db)
        await peer_lives.begin(store, lives, "boot")
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
