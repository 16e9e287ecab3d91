"""What triggers note of sessions: beginnings, ends, deletions and lives of peers; outside a fleet, nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain.clock import Moment
from appliance.domain.entities import Account, Baseline, Reason
from appliance.domain.tiers import Tier
from appliance.store.database import Store
from appliance.store.queries import accounts, fleet_lives, fleet_reports, peers, sessions
from tests.support.unit.a_session import A_SESSION

if TYPE_CHECKING:
    from pathlib import Path

    import aiosqlite

NOW = Moment(5, 6, "boot")


async def noted(db: aiosqlite.Connection) -> list[tuple[object, ...]]:
    rows = await db.execute_fetchall("SELECT session_id, v, urgent, gone FROM fleet_reports")
    return [tuple(row) for row in rows]


async def lives(db: aiosqlite.Connection) -> list[tuple[str, int]]:
    return [(life.boot_id, life.rx_bytes) for life in (await fleet_lives.of_sessions(db, ["ses_1"]))["ses_1"]]


async def marks(db: aiosqlite.Connection) -> list[str]:
    return [life.mark for life in (await fleet_lives.of_sessions(db, ["ses_1"]))["ses_1"]]


async def read(db: aiosqlite.Connection, boot: str, rx: int) -> None:
    await peers.put_baselines(db, [(2, Baseline(boot, 3, rx, 0))])


def test_each_life_has_a_mark_of_its_own(tmp_path: Path) -> None:
    """But the one that begins with the session; one that was put again and not read yet has its own, too."""

    async def story() -> None:
        store = await Store.open(tmp_path / "store.sqlite")
        async with store.write() as db:
            await accounts.insert(db, Account("acc_1", "ada", Tier.FREE, False, 1))
            await fleet_reports.begin_reporting(db)
            await sessions.insert(db, [(A_SESSION, None)])
            await fleet_lives.begin(db, ["ses_1"])
            await read(db, "boot", 10)
            (first,) = await marks(db)
            assert first
            await read(db, "boot", 4)
            await read(db, "next", 9)
            assert len(set(await marks(db))) == 3
            before = await marks(db)
            await sessions.mark_terminated(db, [("ses_1", Reason.CLOSED, 7)])
            assert await marks(db) == before
            await sessions.bring_back(db, [("ses_1", None)], NOW)
            assert await marks(db) == before
            assert await fleet_lives.take_over(db, {"ses_1": before[-1], "ses_2": "x"}) == 0
            assert await fleet_lives.take_over(db, {"ses_1": "other"}) == 1
            assert await marks(db) == before
            await read(db, "next", 20)
            assert await marks(db) == [*before, "other"]
        await store.close()

    asyncio.run(story())


def test_what_is_noted(tmp_path: Path) -> None:
    """A session's whole story, with an end that is taken back; the counters of each life of its peer, once."""

    async def story() -> None:
        store = await Store.open(tmp_path / "store.sqlite")
        async with store.write() as db:
            await accounts.insert(db, Account("acc_1", "ada", Tier.FREE, False, 1))
            await fleet_reports.begin_reporting(db)
            await sessions.insert(db, [(A_SESSION, None)])
            assert await noted(db) == [("ses_1", 1, 1, 0)]
            await read(db, "boot", 10)
            await read(db, "boot", 30)
            assert await lives(db) == [("boot", 30)]
            await peers.forget_baselines(db, [2])
            await read(db, "boot", 7)
            await read(db, "boot", 4)
            await read(db, "next", 9)
            assert await lives(db) == [("boot", 30), ("boot", 7), ("boot", 4), ("next", 9)]
            assert await noted(db) == [("ses_1", 1, 1, 0)]
            assert await sessions.mark_closing(db, ["ses_1"], Reason.CLOSED) == 1
            await sessions.mark_terminated(db, [("ses_1", Reason.CLOSED, 7)])
            await peers.drop(db, [2])
            assert await lives(db) == [("boot", 30), ("boot", 7), ("boot", 4), ("next", 9)]
            assert await noted(db) == [("ses_1", 3, 1, 0)]
            await sessions.bring_back(db, [("ses_1", None)], NOW)
            assert await lives(db) == [("boot", 30), ("boot", 7), ("boot", 4)]
            await sessions.take_back(db, ["ses_1"])
            assert await noted(db) == [("ses_1", 5, 1, 1)]
            assert await lives(db) == []
            await fleet_reports.end_reporting(db)
            await sessions.insert(db, [(replace(A_SESSION, id="ses_2", address_offset=3), None)])
            await read(db, "boot", 1)
            assert (await noted(db), await fleet_reports.state(db)) == ([], None)
            triggers = await db.execute_fetchall("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
            assert list(triggers) == []
        await store.close()

    asyncio.run(story())
