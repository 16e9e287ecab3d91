"""The running server deletes what is due, and its store becomes smaller, also one that an older version made."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.ended_sessions import fill
from tests.support.small_disk import full, small_disk
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.tunnel.appliance_process import Appliance

MANY = 3000
MIB = 2**20


@pytest.mark.black_box
def test_an_older_store_is_emptied_and_shrinks(start_appliance: Callable[..., Appliance]) -> None:
    """A file that cannot shrink is rewritten at the start; old sessions go, then their pages; a live one goes on."""
    appliance = start_appliance(wireguard={"keep_on_exit": True})
    session = appliance.open(appliance.token())
    appliance.stop()
    fill(appliance.store, MANY)
    with closing(sqlite3.connect(appliance.store, isolation_level=None)) as db:
        db.execute("PRAGMA auto_vacuum = NONE")
        db.execute("VACUUM")
    before = appliance.store.stat().st_size
    appliance.start()

    def emptied() -> bool:
        with closing(sqlite3.connect(appliance.store)) as db:
            (left,) = db.execute("SELECT count(*) FROM sessions WHERE state = 'terminated'").fetchone()
            (free,) = db.execute("PRAGMA freelist_count").fetchone()
        return bool(left == free == 0)

    until(emptied, "all has gone, and its pages")
    until(lambda: appliance.store.stat().st_size * 2 < before, "the file is smaller while the server runs")
    assert appliance.log().count(f"the store {appliance.store} can shrink from now on; rewritten in ") == 1
    assert [each["id"] for each in appliance.live_sessions()] == [session["id"]]
    appliance.stop()


def test_a_full_disk_while_old_sessions_go(start_appliance: Callable[..., Appliance], tmp_path: Path) -> None:
    """Where the disk has no room for all that deleting writes, it stops, and clients are served as before."""
    with small_disk(tmp_path / "disk", 64 * MIB) as disk:
        appliance = start_appliance(node={"state_dir": str(disk / "state")})
        token = appliance.token()
        appliance.stop()
        fill(appliance.store, MANY)
        with full(disk, left=MIB * 2 // 3):
            appliance.start()
            until(lambda: "is not deleted: store unavailable" in appliance.log(), "the disk is full")
            until(lambda: appliance.api("GET", "/readyz").status == 200, "it is ready again")
            for _ in range(3):
                appliance.close(appliance.open(token)["id"], token)
        appliance.stop()
