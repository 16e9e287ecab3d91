"""A fleet of before there were standbys, or several hubs, goes on: its rows stay, and these fit beside them."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain.fleet_member import FleetMember
from appliance.fleet.membership.hub_set import HubSet
from appliance.store import migration
from appliance.store.database import Store
from appliance.store.queries import fleet_changes, fleet_members, fleet_state

if TYPE_CHECKING:
    from pathlib import Path

BEFORE = """
INSERT INTO fleet (only_row, role, node_id, gen) VALUES (1, 'hub', 'nod_1', 1);
INSERT INTO fleet_members VALUES ('nod_1', 'fra1', 'fra', 'hub', 'UFRA', zeroblob(32), 1, NULL);
CREATE TRIGGER fleet_update_of_fleet_members AFTER UPDATE OF name ON fleet_members
BEGIN
    INSERT INTO fleet_changes (mark, kind, id) VALUES ('m', 'member', NEW.id);
END;
"""


OF_STANDBY = """
INSERT INTO fleet (only_row, role, node_id, gen, acc_rev, acc_mark) VALUES (1, 'standby', 'nod_2', 3, 12, 'm');
INSERT INTO fleet_members VALUES ('nod_1', 'fra1', 'fra', 'hub', 'UFRA', zeroblob(32), 1, NULL, 'a:1');
INSERT INTO fleet_members VALUES ('nod_2', 'ams1', 'ams', 'standby', 'UAMS', zeroblob(32), 2, NULL, 'b:1');
"""
EARLIER_TRIGGER = """
CREATE TRIGGER fleet_update_of_fleet_members AFTER UPDATE OF dialled ON fleet_members
BEGIN
    INSERT INTO fleet_changes (mark, kind, id) VALUES ('m', 'member', NEW.id);
END;
"""


def earlier_store(path: Path, rows: str, newer: str = "fleet_conflicts") -> None:
    """Makes a store of the version before the migration that has this text, with these rows."""
    number = next(n for n, script in migration.migrations() if newer in script) - 1
    with closing(sqlite3.connect(path)) as db, db:
        for version, script in migration.migrations():
            if version <= number:
                db.executescript(script)
        db.executescript(f"PRAGMA user_version = {number}; PRAGMA application_id = {migration.APPLICATION_ID}; {rows}")


def test_a_hub_of_the_version_before_takes_a_standby(tmp_path: Path) -> None:
    """Where it is dialled is told by its next start, by triggers that are made anew."""
    path = tmp_path / "store.sqlite"
    earlier_store(path, BEFORE)

    async def story() -> None:
        store = await Store.open(path)
        try:
            async with store.write() as db:
                row, found = await fleet_state.read(db), await fleet_members.by_id(db, "nod_1")
                assert row is not None
                assert (row.role, row.gen, row.base) == ("hub", 1, fleet_changes.Head(0, ""))
                assert found == FleetMember("nod_1", "fra1", "fra", "hub", "UFRA", bytes(32), 1)
                assert not await fleet_changes.is_recorded(db)
                await fleet_changes.record(db)
                assert await fleet_changes.is_recorded(db)
                before = await fleet_changes.head(db)
                await fleet_members.put_dialled(db, "nod_1", "192.0.2.1:7422")
                await fleet_members.put_dialled(db, "nod_1", "")
                await fleet_members.put(db, FleetMember("nod_2", "ams1", "ams", "standby", "UAMS", bytes(32), 2))
                changed = await fleet_changes.after(db, before.rev, 9)
                assert [each.id for each in changed] == ["nod_1", "nod_2"]
                assert '"dialled":"192.0.2.1:7422"' in (changed[0].row or "")
                assert '"role":"spoke"' in (changed[1].row or "")  # what earlier versions understand
                assert '"standby":true' in (changed[1].row or "")
        finally:
            await store.close()

    asyncio.run(story())


def test_a_spoke_of_the_version_before_reads_anew_what_its_hub_has_told(tmp_path: Path) -> None:
    """A hub that was upgraded first has told where it is dialled when the spoke could not store that."""
    path = tmp_path / "store.sqlite"
    earlier_store(
        path,
        "INSERT INTO fleet (only_row, role, node_id, gen, acc_rev, acc_mark) VALUES (1, 'spoke', 'nod_2', 1, 12, 'm');",
    )

    async def story() -> None:
        store = await Store.open(path)
        try:
            async with store.read() as db:
                row = await fleet_state.read(db)
            assert row is not None
            assert (row.role, row.gen, row.acc_rev, row.acc_mark) == ("spoke", 1, 0, "")
        finally:
            await store.close()

    asyncio.run(story())


def test_a_standby_reads_anew_since_when_the_hubs_are_these(tmp_path: Path) -> None:
    """A hub that was upgraded first has told it when the standby could not store it. Nothing else of it changes."""
    path = tmp_path / "store.sqlite"
    earlier_store(path, OF_STANDBY, "hub_since")

    async def story() -> None:
        store = await Store.open(path)
        try:
            async with store.write() as db:
                row, hubs = await fleet_state.read(db), HubSet.of(await fleet_members.present(db))
                assert row is not None
                assert (row.role, row.gen, row.acc_rev, row.acc_mark) == ("standby", 3, 0, "")
                assert row.kept == (0, fleet_changes.Head(0, ""))
                assert [(each.name, each.dialled) for each in hubs.hubs] == [("fra1", "a:1"), ("ams1", "b:1")]
                assert (hubs.since, hubs.is_cluster) == (0, False)
                await fleet_members.put(db, replace(hubs.hubs[1], hub_since=7))
                assert HubSet.of(await fleet_members.present(db)).since == 7
        finally:
            await store.close()

    asyncio.run(story())


def test_a_hub_of_the_version_before_tells_since_when_the_hubs_are_these(tmp_path: Path) -> None:
    """Its triggers are made anew, as they do not follow that."""
    path = tmp_path / "store.sqlite"
    earlier_store(path, OF_STANDBY.replace("'standby', 'nod_2', 3, 12, 'm'", "'hub', 'nod_1', 3, 0, ''"), "hub_since")

    async def story() -> None:
        store = await Store.open(path)
        try:
            async with store.write() as db:
                await db.execute(EARLIER_TRIGGER)
                assert not await fleet_changes.is_recorded(db)
                await fleet_changes.record(db)
                assert await fleet_changes.is_recorded(db)
                before = await fleet_changes.head(db)
                await db.execute("UPDATE fleet_members SET hub_since = 7 WHERE id = 'nod_2'")
                (changed,) = await fleet_changes.after(db, before.rev, 9)
            assert '"hub_since":7' in (changed.row or "")
        finally:
            await store.close()

    asyncio.run(story())
