"""What the store keeps of limits that a fleet shares."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from appliance.domain.entities import Account
from appliance.domain.tiers import Tier
from appliance.fleet.quota.holder import Borrowed, Lease, Slots
from appliance.fleet.quota.kept_leases import KeptLeases
from appliance.store import migration
from appliance.store.database import Store
from appliance.store.queries import accounts, escrow, fleet_state, fleet_traces

if TYPE_CHECKING:
    from pathlib import Path

MIGRATIONS = migration.migrations()
ESCROW = next(number for number, sql in MIGRATIONS if "CREATE TABLE escrow" in sql)
LENT = Borrowed(Lease(1, 20, 10, 30, 40), Lease(2, 21, 11, 31, 41), Slots(1, 2, 3), e=4, q=500, known=True)
ADA = Account("acc_1", "ada", Tier.FREE, False, 1)


async def keep(store: Store, *account_ids: str) -> None:
    async with store.write() as db:
        await fleet_state.enter(db, "spoke", "nod_1", 1)
    kept = KeptLeases(store)
    await kept.load(0)
    for account_id in account_ids:
        kept.note(account_id, LENT)
    await kept.save()


@pytest.mark.parametrize("version", [1, 9, 12, ESCROW - 1])
def test_accounts_of_older_stores_have_nothing_lent(tmp_path: Path, version: int) -> None:
    """They are what they were."""
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as db:
        for number, sql in MIGRATIONS:
            if number <= version:
                db.executescript(sql)
        db.execute("INSERT INTO accounts (id, name, tier, disabled, created_at) VALUES ('acc_1', 'ada', 'free', 0, 1)")
        db.commit()
        db.executescript(f"PRAGMA user_version = {version}; PRAGMA application_id = {migration.APPLICATION_ID};")

    async def story() -> None:
        store = await Store.open(path)
        async with store.read() as db:
            assert await escrow.everything(db) == []
            assert await accounts.everyone(db) == [ADA]
        await keep(store, "acc_1")
        await store.close()

    asyncio.run(story())


def test_what_was_lent_is_there_after_a_restart(tmp_path: Path) -> None:
    """Of accounts that are still there; requests go on from the wall clock, or the last number that was stored."""

    async def story() -> None:
        store = await Store.open(tmp_path / "store.db")
        async with store.write() as db:
            await accounts.insert(db, ADA)
        await keep(store, "acc_1", "acc_gone")
        for wall_ms, q in ((3, 500), (600, 600)):
            loaded = await KeptLeases(store).load(wall_ms)
            assert loaded == {"acc_1": Borrowed(LENT.traffic, LENT.time, LENT.slots, e=4, q=q, known=True)}
        async with store.write() as db:
            await fleet_traces.erase(db)
        assert await KeptLeases(store).load(0) == {}
        await store.close()

    asyncio.run(story())


def test_what_is_given_back_while_the_store_is_written_is_stored(tmp_path: Path) -> None:
    """Also if it is as before: an opening was refused, as the quota was used up. It is stored before it is told."""

    async def story() -> None:
        store = await Store.open(tmp_path / "store.db")
        async with store.write() as db:
            await accounts.insert(db, ADA)
        await keep(store, ADA.id)
        kept, opening = KeptLeases(store), replace(LENT, slots=Slots(2, 1, 3))
        await kept.load(0)
        kept.note(ADA.id, opening)
        async with store.write():
            saving = asyncio.create_task(kept.save())
            await asyncio.sleep(0)  # it has taken what it writes, and waits for its turn
            kept.note(ADA.id, LENT)
        await kept.save()
        await saving
        async with store.read() as db:
            row = await escrow.of_account(db, ADA.id)
        await store.close()
        assert row is not None
        assert row.live == (1, 2, 3)

    asyncio.run(story())


def test_nothing_is_kept_once_the_host_has_left_the_fleet(tmp_path: Path) -> None:
    """The server may not have seen it yet; a row that it left would limit the single exit."""

    async def story() -> None:
        store = await Store.open(tmp_path / "store.db")
        async with store.write() as db:
            await accounts.insert(db, ADA)
        await keep(store, ADA.id)
        kept = KeptLeases(store)
        await kept.load(0)
        kept.note(ADA.id, Borrowed())
        async with store.write() as db:
            await fleet_traces.erase(db)
        await kept.save()
        async with store.read() as db:
            assert await escrow.of_account(db, ADA.id) is None
        await store.close()

    asyncio.run(story())


def test_of_a_restored_backup_nothing_is_lent(tmp_path: Path) -> None:
    """The hub learns it by a higher number. A store of an older version has nothing to be marked."""
    path = tmp_path / "store.db"

    async def story() -> None:
        store = await Store.open(path)
        async with store.write() as db:
            await accounts.insert(db, ADA)
        await keep(store, "acc_1")
        await store.close()
        with closing(sqlite3.connect(path)) as db:
            escrow.mark_restored(db)
            db.commit()
        store = await Store.open(path)
        (borrowed,) = (await KeptLeases(store).load(0)).values()
        await store.close()
        assert (borrowed.e, borrowed.traffic.granted, borrowed.time.granted, borrowed.slots.held) == (5, 0, 0, 0)
        assert (borrowed.traffic.opened, borrowed.traffic.others, borrowed.known) == (1, 40, True)

    asyncio.run(story())
    with closing(sqlite3.connect(tmp_path / "older.db")) as db:
        escrow.mark_restored(db)
