"""The hub's streams on a real nats-server: read by sequence, wiped, rolled back, full."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
from nats.js.errors import APIError, ServerError, ServiceUnavailableError

from appliance.domain.clock import HostClock
from appliance.domain.errors import CutOff, FleetError, NotAnswered, StreamFull
from appliance.fleet.claims.kv import MOST_BYTES, KvRecords
from appliance.fleet.hub_part import DEVICE_NAMES, KEYS
from appliance.fleet.link.link import NatsLink
from appliance.fleet.reports.fold import Fold
from appliance.fleet.reports.reporting import ReportingPace
from appliance.fleet.reports.reports import SessionReport, subject_of
from appliance.fleet.reports.stream_room import NEARLY
from appliance.fleet.reports.stream_upkeep import StreamUpkeep
from appliance.fleet.reports.streams import NatsStreams, stream_of
from appliance.store.database import Store
from appliance.store.queries import fleet_fold
from tests.support.api.exit_under_test import serving, until
from tests.support.fleet.hub_process import SECONDS, HubProcess
from tests.support.fleet.reporting_world import NODE, ReportingWorld
from tests.support.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


GONE = "nod_" + "b" * 24
REPORT = SessionReport(3, "ab", 0, 7, "cd", 1_790_000_000_000, 2, 3, 1000, "live", "acc_1", "paid", "fsn")


class RealHub:
    """A hub, the exit's link and the hub's own."""

    def __init__(self, folder: Path) -> None:
        self.process = HubProcess(folder / "hub", NODE)
        self.link = NatsLink(lambda: (self.process.at(),), self.process.user(NODE), HostClock())
        self.hub_link = NatsLink(lambda: (self.process.at(),), self.process.hub_user(), HostClock())
        self.streams = NatsStreams(self.hub_link.jetstream)
        self.store = self.process.folder / "jetstream"

    async def connected(self) -> None:
        for link in (self.link, self.hub_link):
            await link.wait_connected(SECONDS)

    async def put_back(self, image: Path | None) -> None:
        """The server is killed, its disk is that of the image, or empty, and it starts again."""
        self.process.kill()
        while self.link.connected or self.hub_link.connected:  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0.01)
        shutil.rmtree(self.store)
        if image is not None:
            shutil.copytree(image, self.store)
        self.process.start()
        await self.connected()

    async def image(self, target: Path) -> None:
        """Copies the disk while the server is stopped."""
        self.process.kill()
        while self.link.connected or self.hub_link.connected:  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0.01)
        shutil.copytree(self.store, target)
        self.process.start()
        await self.connected()


@asynccontextmanager
async def real_hub(folder: Path) -> AsyncIterator[RealHub]:
    hub = RealHub(folder)
    with hub.process:
        hub.link.start()
        hub.hub_link.start()
        await hub.connected()
        try:
            yield hub
        finally:
            await hub.link.close()
            await hub.hub_link.close()


def test_streams_are_read_by_sequence(tmp_path: Path) -> None:
    """In order, in pages, each subject's last message alone; from the end there is nothing. None is made twice."""

    async def story() -> None:
        async with real_hub(tmp_path) as hub:
            await hub.streams.make(NODE)
            await hub.streams.make(NODE)
            assert await hub.streams.last_sequence(NODE) == 0
            assert await hub.streams.read(NODE, 0, 5) == []
            for number in range(8):
                await hub.link.keep(f"wga.state.{NODE}.s.{number % 5}.0", str(number).encode(), 5)
            assert await hub.streams.last_sequence(NODE) == 8
            first = await hub.streams.read(NODE, 0, 2)
            rest = await hub.streams.read(NODE, first[-1].sequence, 100)
            assert [(m.sequence, m.data) for m in (*first, *rest)] == [(n + 1, b"%d" % n) for n in range(3, 8)]
            assert {m.subject for m in (*first, *rest)} == {f"wga.state.{NODE}.s.{n}.0" for n in range(5)}
            assert await hub.streams.read(NODE, 8, 5) == []
            assert await hub.streams.read(NODE, 100, 5) == []
            assert 0 < await hub.streams.fullness(NODE) < 0.001
            await hub.streams.drop(NODE, [5, 6, 6])
            assert [m.sequence for m in await hub.streams.read(NODE, 0, 5)] == [4, 7, 8]
            for number in range(63):  # with NODE's, as many exits as a fleet may have; and buckets beside them
                await hub.streams.make(f"nod_{number:024x}")
            for bucket in (KEYS, DEVICE_NAMES):
                await KvRecords(hub.hub_link.jetstream, bucket).name()
            await hub.hub_link.jetstream().delete_stream(stream_of(NODE))
            with pytest.raises(FleetError):
                await hub.streams.read(NODE, 0, 5)
            await hub.streams.make(NODE)
            await hub.link.keep(f"wga.state.{NODE}.s.0.0", b"0", 5)
            reads = [asyncio.create_task(hub.streams.read(NODE, 0, 5)) for _ in range(20)]
            await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
            hub.process.kill()
            with pytest.raises(FleetError):
                await hub.streams.last_sequence(NODE)
            await asyncio.gather(*reads, return_exceptions=True)
            await asyncio.sleep(0)
            assert [each for each in asyncio.all_tasks() if "activity_check" in repr(each)] == []
        with pytest.raises(CutOff):
            await hub.streams.last_sequence(NODE)

    asyncio.run(story())


def test_what_is_no_longer_needed_is_removed(tmp_path: Path) -> None:
    """The stream of a host that is gone, once all of it is folded; of members, messages of ended sessions a week after.
    Buckets that were made without a bound have theirs."""

    async def story() -> None:
        async with real_hub(tmp_path) as hub:
            store = await Store.open(tmp_path / "hub.sqlite")
            clock = VirtualClock(HostClock().now().wall_ms)
            fold = Fold(store, hub.streams, lambda: [NODE])
            buckets = [KvRecords(hub.hub_link.jetstream, each) for each in (KEYS, DEVICE_NAMES)]
            upkeep = StreamUpkeep(fold, hub.streams, lambda: [NODE], clock, buckets)
            try:
                await hub.hub_link.jetstream().create_key_value(bucket=KEYS, history=1)
                for node in (NODE, GONE):
                    await hub.streams.make(node)
                    for session, state in (("ses_1", "live"), ("ses_2", "terminated")):
                        report = msgspec.structs.replace(REPORT, state=state)
                        subject = subject_of(node, f"{session}{node[-1]}", report.of_epoch)
                        await hub.hub_link.keep(subject, msgspec.json.encode(report), 5)
                await upkeep.look()
                assert await hub.streams.nodes() == [NODE]
                assert len(await hub.streams.read(NODE, 0, 9)) == 2
                assert await folded(store, GONE) == 2
                for bucket in (KEYS, DEVICE_NAMES):
                    config = (await hub.hub_link.jetstream().stream_info(f"KV_{bucket}")).config
                    assert config.max_bytes == MOST_BYTES
                clock.advance(8 * 86_400)
                await upkeep.look()
                (left,) = await hub.streams.read(NODE, 0, 9)
                assert "ses_1" in left.subject
                assert await folded(store, NODE) == 2
            finally:
                await store.close()

    asyncio.run(story())


async def folded(store: Store, node: str) -> int:
    async with store.read() as db:
        return len(await fleet_fold.said_after_batch(db, node, 0, "", 9))


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ServiceUnavailableError(), NotAnswered),  # nats-py's where nobody answers
        (ServiceUnavailableError(code=503, err_code=10077, description="maximum bytes exceeded"), StreamFull),
        (ServerError(code=500, err_code=10047, description="insufficient storage resources available"), StreamFull),
        (ServerError(code=500, err_code=10049, description="something else"), NotAnswered),
    ],
)
def test_a_hub_that_has_just_started_is_not_full(error: APIError, raised: type[FleetError]) -> None:
    """Only what JetStream says of its room is taken for that."""

    class Refusing:
        async def add_stream(self, _config: object) -> None:
            raise error

    with pytest.raises(raised):
        asyncio.run(NatsStreams(Refusing).make(NODE))  # type: ignore[arg-type]  # all that is asked of it


def test_an_exit_whose_stream_is_full_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It opens and ends sessions, and says once that they are not reported; the stream is no larger than its bound.
    Once the hub has folded what is there, it is told all."""

    async def story() -> None:
        async with real_hub(tmp_path) as hub, serving(tmp_path) as exit_:
            world = ReportingWorld(tmp_path, exit_, hub.link, hub.hub_link, hub.streams)
            await world.start()
            jetstream = hub.hub_link.jetstream()
            config = (await jetstream.stream_info(stream_of(NODE))).config
            await jetstream.update_stream(config, max_bytes=12_000)  # a message is a twentieth of it
            world.begin_process(ReportingPace(report_s=0, look_s=0.02))
            reporting = asyncio.create_task(world.reporting.run())
            client = await exit_.client()
            opened = [await client.connect() for _ in range(30)]
            for each in opened:
                await world.use(each["id"])
            await until(lambda: "is full" in caplog.text, "the stream is full")
            opened.append(await client.connect())
            await client.delete(opened[0]["id"])
            await asyncio.sleep(0.2)  # some more tries
            assert len([each for each in caplog.records if "are not reported" in each.message]) == 1
            assert NEARLY < await hub.streams.fullness(NODE) <= 1.0
            assert await world.reporting.unsent()
            async with asyncio.timeout(SECONDS):
                while not world.reporting.settled or await world.reporting.unsent():
                    await world.fold.catch_up(NODE)
                    await world.fold.make_room(NODE)
            reporting.cancel()
            assert await world.totals() == world.used
            ended = await world.folded(opened[0]["id"])
            assert ended is not None
            assert ended.state == "terminated"
            await world.stop_hub()

    asyncio.run(story())


def test_a_real_hub_is_wiped_and_rolled_back(tmp_path: Path) -> None:
    """Killed, with its disk emptied or that of before, stream and fold: the exit's figures are there again, equal."""

    async def story() -> None:
        async with real_hub(tmp_path) as hub, serving(tmp_path) as exit_:
            world = ReportingWorld(tmp_path, exit_, hub.link, hub.hub_link, hub.streams)
            await world.start()
            client = await exit_.client()
            opened = [await client.connect() for _ in range(5)]
            await move(world, opened)
            await hub.image(tmp_path / "image")
            world.image_fold()
            await move(world, opened)
            await client.delete(opened[0]["id"])
            await move(world, opened[1:])
            await hub.put_back(tmp_path / "image")
            await world.roll_back_fold()
            assert await world.totals() != world.used
            await told(world)
            await hub.put_back(None)
            await world.wipe_fold()
            assert await world.totals() == {}
            await told(world)
            # The stream alone is rolled back, and goes on past where the fold had read it.
            await hub.put_back(tmp_path / "image")
            world.fold.reconnected()
            await move(world, opened[1:])
            await world.stop_hub()

    asyncio.run(story())


async def move(world: ReportingWorld, opened: list[dict[str, str]]) -> None:
    for each in opened:
        await world.use(each["id"])
    await told(world)


async def told(world: ReportingWorld) -> None:
    await world.report()
    assert await world.totals() == world.used
    own, theirs = await world.digests()
    assert own == theirs
