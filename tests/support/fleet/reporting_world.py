"""An exit that reports, over the bus in memory, to a hub that folds: real stores, meter and policy on both ends."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

from appliance.fleet.reports import away
from appliance.fleet.reports.fold import Fold
from appliance.fleet.reports.fold_answers import FoldAnswers
from appliance.fleet.reports.reporting import Reporting, ReportingPace
from appliance.store.database import Store
from appliance.store.queries import fleet_fold, fleet_reports
from tests.support.api.exit_under_test import serving
from tests.support.fleet.bus import Bus
from tests.support.fleet.bus_streams import BusStreams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from appliance.fleet.link.wire import HubLink
    from appliance.fleet.reports.away import FoldedSession
    from appliance.fleet.reports.stream_room import Streams
    from tests.support.api.exit_under_test import ExitUnderTest

NODE = "nod_" + "a" * 24
PACE = ReportingPace(report_s=0, answer_s=1.5)  # a loaded machine takes longer than half a second
TURNS = 12  # of reporting, in which all is told that can be


class ReportingWorld:
    """The exit is `exit_`. `folder` has the store of the hub, backups and images."""

    def __init__(self, folder: Path, exit_: ExitUnderTest, link: HubLink, hub_link: HubLink, streams: Streams) -> None:
        self.folder = folder
        self.exit_ = exit_
        self.link = link
        self.hub_link = hub_link
        self.streams = streams
        self.answers: FoldAnswers | None = None
        self.used: dict[str, int] = {}  # by session: what its client has moved, both ways

    async def start(self) -> None:
        await self.start_hub()
        async with self.exit_.store.write() as db:
            await fleet_reports.begin_reporting(db)
        self.begin_process()

    async def start_hub(self) -> None:
        self.hub = await Store.open(self.folder / "hub.sqlite")
        self.fold = Fold(self.hub, self.streams, lambda: [NODE])
        answers, first = FoldAnswers(self.hub, self.fold, lambda node: node == NODE), self.answers is None
        self.answers = answers
        await self.streams.make(NODE)
        if first:
            # The link of the hub stays; what answers on it is the present process.
            await self.hub_link.subscribe("wga.led.*.digest", lambda m: self._answers().digest(m), "ledger")
            await self.hub_link.subscribe("wga.led.*.usage", lambda m: self._answers().usage(m), "ledger")

    def _answers(self) -> FoldAnswers:
        assert self.answers is not None
        return self.answers

    def begin_process(self, pace: ReportingPace = PACE) -> None:
        self.reporting = Reporting(NODE, self.link, self.exit_.store, self.exit_.clock, pace)

    # The exit ------------------------------------------------------------------------------------------

    async def use(self, session_id: str, count: int = 1000) -> None:
        """Its client moves so many bytes, a tenth of them up."""
        key = self.exit_.key_of(session_id)
        self.exit_.tunnel.add_traffic(key, rx=count // 10, tx=count - count // 10)
        self.used[session_id] = self.used.get(session_id, 0) + count
        await self.exit_.tick(2)

    async def report(self, turns: int = TURNS) -> None:
        """Reports until all is told and the digests are equal, or `turns` are over."""
        for _ in range(turns):
            if not await self.reporting.step() and self.reporting.settled and not await self.reporting.unsent():
                return

    def back_up(self, name: str = "backup") -> None:
        copy_store(self.exit_.path, self.folder / name)

    async def restore(self, name: str = "backup", *, marked: bool = True) -> None:
        """Puts the backup in the store's place, and starts the next process on the same interface."""
        await self.exit_.stop()
        put_back(self.folder / name, self.exit_.path)
        if marked:
            with closing(sqlite3.connect(self.exit_.path)) as db, db:
                fleet_reports.mark_restored(db)
        tunnel = type(self.exit_.tunnel)(self.exit_.tunnel.interface)
        self.exit_.tunnel = tunnel
        await self.exit_.start()
        self.begin_process()

    async def restart(self) -> None:
        await self.exit_.restart()
        self.begin_process()

    async def reboot(self) -> None:
        await self.exit_.tick(1)
        await self.exit_.stop()
        self.exit_.tunnel = type(self.exit_.tunnel)()
        self.exit_.clock.reboot()
        await self.exit_.start()
        self.begin_process()

    # The hub -------------------------------------------------------------------------------------------

    async def stop_hub(self) -> None:
        await self.hub.close()

    async def wipe_fold(self) -> None:
        await self.stop_hub()
        for path in self.folder.glob("hub.sqlite*"):
            path.unlink()
        await self.start_hub()

    def image_fold(self) -> None:
        copy_store(self.folder / "hub.sqlite", self.folder / "hub.image")

    async def roll_back_fold(self) -> None:
        await self.stop_hub()
        put_back(self.folder / "hub.image", self.folder / "hub.sqlite")
        await self.start_hub()

    async def folded(self, session_id: str) -> FoldedSession | None:
        async with self.hub.read() as db:
            return await away.folded(db, session_id)

    async def totals(self) -> dict[str, int]:
        """What the hub has of each session that has moved something: bytes of both directions."""
        await self.fold.catch_up(NODE)
        async with self.hub.read() as db:
            said = await fleet_fold.said_after_batch(db, NODE, -1, "", 10_000)
            found = [await away.folded(db, each.session_id) for each in said]
        return {each.id: each.report.total_bytes for each in found if each is not None and each.report.total_bytes}

    async def digests(self) -> tuple[object, object]:
        async with self.hub.read() as db:
            theirs = await fleet_fold.months(db, NODE)
        async with self.exit_.store.read() as db:
            return await fleet_reports.months(db), theirs


class BusWorld(ReportingWorld):
    """Exit and hub on the bus in memory."""

    def __init__(self, folder: Path, exit_: ExitUnderTest, bus: Bus) -> None:
        self.bus, self.bus_streams = bus, BusStreams(bus)
        super().__init__(folder, exit_, bus.node(NODE), bus.hub(), self.bus_streams)

    async def wipe_hub(self) -> None:
        """The hub's disk is lost: the stream, and the store with the fold."""
        self.bus_streams.wipe(NODE)
        await self.wipe_fold()

    async def roll_back_hub(self, image: tuple[int, dict[str, tuple[int, bytes]]]) -> None:
        """Both are as they were when images of them were made."""
        self.bus_streams.roll_back(NODE, image)
        await self.roll_back_fold()


def copy_store(path: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(target)) as other:
        db.backup(other)


def put_back(source: Path, path: Path) -> None:
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    shutil.copy(source, path)


@asynccontextmanager
async def reporting_world(folder: Path, config: str = "") -> AsyncIterator[BusWorld]:
    bus = Bus()
    async with serving(folder, config) as exit_:
        world = BusWorld(folder, exit_, bus)
        await world.start()
        try:
            yield world
            assert bus.failures == []
        finally:
            await world.stop_hub()
