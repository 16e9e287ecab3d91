"""A standby has the same of what exits have told as the hub: of those that are gone, too, and of what left streams."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from appliance.domain.errors import FleetError, NotAnswered
from appliance.fleet.reports.fold_answers import MOST_SESSIONS, FoldAnswers
from appliance.fleet.reports.fold_copies import FoldCopies
from appliance.fleet.reports.fold_copying import FoldCopying
from appliance.fleet.reports.reports import (
    ReportedLine,
    ReportedRates,
    ReportedWindows,
    ReportMark,
    SessionReport,
    mark_subject,
)
from appliance.fleet.reports.stream_upkeep import StreamUpkeep
from appliance.store.database import Store
from tests.support.fleet.reporting_world import NODE, BusWorld, reporting_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

GONE, STANDBY = "nod_" + "b" * 24, "nod_" + "c" * 24
NOV, DEC = 1_790_000_000_000, 1_797_000_000_000
ROOMY = 1 << 40
# Of windows all but the batch: a copy has it from a session that was told of in it, or later.
TABLES = {
    "fleet_sessions": "*",
    "fleet_lines": "*",
    "fleet_months": "*",
    "fleet_nodes": "*",
    "fleet_windows": "account_id, node, bytes_opened_at, bytes_used, time_opened_at, time_used_ms",
}


def report(v: int, batch: int, *, account: str = "acc_1", created_at: int = NOV, state: str = "live") -> SessionReport:
    line = ReportedLine("2026-11", 5, None, v, 2 * v, 3 * v, ReportedRates("eur", 4, 5), 6, 7)
    windows = ReportedWindows(created_at, 5 * v, None, 0)
    return SessionReport(
        v, "ab", 0, batch, f"{batch:08x}", created_at, 2 * v, 3 * v, 1000 * v, state, account, "paid", "fsn",
        lines=(line,), windows=windows,
    )  # fmt: skip


class CopiedWorld:
    """The hub of a BusWorld, and a standby with a store of its own."""

    def __init__(self, world: BusWorld, folder: Path) -> None:
        self.world = world
        self._path = folder / "standby.sqlite"
        answers = FoldAnswers(world.hub, world.fold, lambda _: True)
        self.copies = FoldCopies(world.hub, answers, lambda: [STANDBY])
        self.link = world.bus.node(STANDBY)

    async def start(self) -> None:
        self.store = await Store.open(self._path)
        self.restart()

    def restart(self) -> None:
        self.copying = FoldCopying(STANDBY, self.link, self.store, lambda: ROOMY)

    async def tell(self, told: dict[str, SessionReport], node: str = NODE) -> None:
        await self.world.streams.make(node)
        for session_id, each in told.items():
            await self.world.bus.hub().keep(f"wga.state.{node}.s.{session_id}.0-ab", msgspec.json.encode(each), 1)
        await self.world.fold.catch_up(node)

    async def looks(self, times: int = 3) -> None:
        """The first copies, the second compares, and a third has nothing to do."""
        for _ in range(times):
            await self.copying.look()

    async def both(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return await rows_of(self.world.hub), await rows_of(self.store)


async def rows_of(store: Store) -> dict[str, Any]:
    async with store.read() as db:
        return {
            table: sorted(tuple(row) for row in await db.execute_fetchall(f"SELECT {columns} FROM {table}"))  # noqa: S608
            for table, columns in TABLES.items()
        }


@asynccontextmanager
async def copied_world(folder: Path) -> AsyncIterator[CopiedWorld]:
    async with reporting_world(folder) as world:
        copied = CopiedWorld(world, folder)
        await copied.copies.listen(world.bus.hub())
        await copied.start()
        try:
            yield copied
        finally:
            await copied.store.close()


def test_a_standby_has_all_that_exits_have_told(tmp_path: Path) -> None:
    """Lines, sums, windows and marks, of an exit that is gone too; then what is told anew."""

    async def story() -> None:
        async with copied_world(tmp_path) as here:
            both = NOV, DEC
            told = {f"ses_{n:03}": report(1, 1 + n // 100, created_at=both[n % 2]) for n in range(MOST_SESSIONS + 50)}
            await here.tell(told)
            await here.tell({"ses_gone": report(4, 9, account="acc_2", state="terminated")}, GONE)
            mark = msgspec.json.encode(ReportMark(3, f"{3:08x}", DEC, 250, 250))
            await here.world.bus.hub().keep(mark_subject(NODE), mark, 1)
            await here.world.fold.catch_up(NODE)
            assert not await here.copies.are_whole(GONE)
            await here.looks()
            hub, standby = await here.both()
            assert len(hub["fleet_lines"]) == 251
            assert standby == hub
            assert await here.copies.are_whole(GONE)
            await here.tell({"ses_001": report(2, 4), "ses_new": report(1, 5)})
            assert not await here.copies.are_whole(NODE)
            await here.looks(1)
            hub, standby = await here.both()
            assert standby["fleet_sessions"] == hub["fleet_sessions"], "by the batches since, without a comparison"
            await here.looks()
            hub, standby = await here.both()
            assert standby == hub
            assert await here.copies.are_whole(NODE)

    asyncio.run(story())


def test_what_was_rolled_back_is_copied_again(tmp_path: Path) -> None:
    """The standby's store lacks sessions of which its last batch says that it has them."""

    async def story() -> None:
        async with copied_world(tmp_path) as here:
            await here.tell({f"ses_{number:03}": report(1, number + 1) for number in range(20)})
            await here.looks()
            async with here.store.write() as db:
                await db.execute("DELETE FROM fleet_sessions WHERE session_id < 'ses_010'")
                await db.execute("DELETE FROM fleet_lines WHERE session_id < 'ses_010'")
                await db.execute("UPDATE fleet_months SET sessions = 10, sum_v = 10, sum_bytes = 50")
            here.restart()
            await here.looks()
            hub, standby = await here.both()
            assert standby == hub

    asyncio.run(story())


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 30))])
def test_what_is_told_while_it_is_copied_is_copied_too(tmp_path: Path, seed: int) -> None:
    """However the questions and the reports come, and wherever a look is cut off, or the standby started anew."""

    async def story() -> None:
        chance = random.Random(seed)  # noqa: S311 (no secret)
        async with copied_world(tmp_path) as here:
            ask, versions, batches = here.link.request, dict[tuple[str, str], int](), {NODE: 0, GONE: 0}

            async def told_more() -> None:
                for _ in range(chance.randrange(4)):
                    node, session_id = chance.choice((NODE, GONE)), f"ses_{chance.randrange(30):02}"
                    versions[node, session_id] = v = versions.get((node, session_id), 0) + 1
                    batches[node] += chance.randrange(2) or not batches[node]
                    account = f"acc_{chance.randrange(3)}" if v == 1 else "acc_1"
                    await here.tell({session_id + node[-1]: report(v, batches[node], account=account)}, node)

            async def request(subject: str, data: bytes, timeout_s: float) -> bytes:
                await told_more()
                if not chance.randrange(8):
                    raise NotAnswered("cut off")
                answer = await ask(subject, data, timeout_s)
                await told_more()
                return answer

            here.link.request = request  # type: ignore[method-assign]
            for _ in range(12):
                with suppress(FleetError):
                    await here.copying.look()
                if not chance.randrange(4):
                    here.restart()
            here.link.request = ask  # type: ignore[method-assign]
            await here.looks()
            hub, standby = await here.both()
            assert standby == hub

    asyncio.run(story())


def test_a_standby_alone_is_told_what_others_have_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with copied_world(tmp_path) as here:
            spoke = FoldCopying(NODE, here.world.bus.node(NODE), here.store, lambda: ROOMY)
            with pytest.raises(NotAnswered, match="only a standby"):
                await spoke.look()

    asyncio.run(story())


def test_a_disk_that_is_nearly_full_takes_no_copy(tmp_path: Path) -> None:
    """This host's own sessions have room; nothing is noted as copied."""

    async def story() -> None:
        async with copied_world(tmp_path) as here:
            await here.tell({"ses_1": report(1, 1)})
            full = FoldCopying(STANDBY, here.link, here.store, lambda: 1000)
            with pytest.raises(FleetError, match="nearly full"):
                await full.look()
            await here.looks()
            hub, standby = await here.both()
            assert standby == hub

    asyncio.run(story())


def test_the_stream_of_who_has_left_stays_until_each_hub_has_it(tmp_path: Path) -> None:
    """The hub that folded it may be lost the next moment."""

    async def story() -> None:
        async with copied_world(tmp_path) as here:
            world = here.world
            upkeep = StreamUpkeep(
                world.fold, world.streams, lambda: [NODE], world.exit_.clock, is_copied=here.copies.are_whole
            )
            await here.tell({"ses_1": report(1, 1)}, GONE)
            await upkeep.look()
            assert GONE in await world.streams.nodes()
            await here.looks()
            await upkeep.look()
            assert GONE not in await world.streams.nodes()

    asyncio.run(story())
