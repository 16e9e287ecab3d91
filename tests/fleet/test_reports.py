"""What exits report, and what the hub makes of it: equal to the byte, whatever is lost, restored or rolled back."""

from __future__ import annotations

import asyncio
import functools
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import FleetError
from appliance.fleet.reports.reporting import ReportingPace
from appliance.store.queries import fleet_reports
from tests.support.fleet.reporting_world import NODE, BusWorld, reporting_world

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


def in_fleet(test: Callable[[BusWorld], Awaitable[None]]) -> Callable[[Path], None]:
    """Runs `async def test_x(world)` with an exit and a hub of its own."""

    async def story(tmp_path: Path) -> None:
        async with reporting_world(tmp_path) as world:
            await test(world)

    @functools.wraps(test)
    def run(tmp_path: Path) -> None:
        asyncio.run(story(tmp_path))

    del run.__wrapped__  # type: ignore[attr-defined]  # what pytest reads the parameters from
    return run


async def equal(world: BusWorld) -> None:
    """All is told: to the byte, and the digests say so."""
    await world.report()
    assert await world.totals() == world.used
    own, theirs = await world.digests()
    assert own == theirs


@in_fleet
async def test_a_session_is_told_from_beginning_to_end(world: BusWorld) -> None:
    """With its account, figures, lines and reason; what moved since is told with the next report."""
    client = await world.exit_.client()
    opened = await client.connect()
    await world.use(opened["id"], 5000)
    await equal(world)
    told = await world.folded(opened["id"])
    assert told is not None
    assert (told.node, told.state, told.report.account_id) == (NODE, "live", client.account.id)
    assert (told.report.bytes_in, told.report.bytes_out, told.report.ms) == (500, 4500, 2000)
    await world.use(opened["id"], 700)
    await client.delete(opened["id"])
    await equal(world)
    told = await world.folded(opened["id"])
    assert told is not None
    assert (told.state, told.reason, told.report.total_bytes) == ("terminated", "closed", 5700)
    assert told.report.ended_at == world.exit_.clock.wall_ms
    (line,) = told.report.lines
    assert (line.bytes_in, line.bytes_out, line.seconds, line.ended_at) == (570, 5130, 4, told.report.ended_at)


@in_fleet
async def test_nothing_is_sent_while_cut_off(world: BusWorld) -> None:
    """What happens meanwhile is rows, not messages: afterwards each session is told once, as it is then."""
    client = await world.exit_.client()
    first, second = await client.connect(), await client.connect()
    await equal(world)
    world.bus.cut(NODE)
    sent = len(world.bus.sent)
    for _ in range(3):
        await world.use(first["id"])
        await world.use(second["id"])
        await world.report(2)
    await client.delete(second["id"])
    third = await client.connect()
    await world.use(third["id"])
    assert len(world.bus.sent) == sent
    world.bus.heal(NODE)
    await world.report()
    told = [subject.split(".")[4] for _, subject, _ in world.bus.sent[sent:] if ".s." in subject]
    assert sorted(told) == sorted([first["id"], second["id"], third["id"]])
    await equal(world)


@in_fleet
async def test_a_day_apart(world: BusWorld) -> None:
    """Through 24 hours by a virtual clock sessions open, move, end and expire, process and host are started again: the
    hub's figures wait, and are equal to the byte after it has healed, with one message a session."""
    client = await world.exit_.client()
    opened = [(await client.connect())["id"] for _ in range(3)]
    for each in opened:
        await world.use(each)
    await equal(world)
    world.bus.cut(NODE)
    sent = len(world.bus.sent)
    for hour in range(24):
        if hour in (8, 16):
            await (world.restart() if hour == 8 else world.reboot())
        listed = (await client.get("/v1/sessions")).json()["sessions"]
        live = [each["id"] for each in listed if "terminated_at" not in each]
        for each in live:
            await world.use(each, 1000 + hour)
        if live and hour % 3 == 0:
            await client.delete(live[0])
        opened.append((await client.connect())["id"])
        await world.use(opened[-1], 5000 + hour)
        for _ in range(6):
            await world.exit_.tick(600)
        await world.report(1)
    assert len(world.bus.sent) == sent
    world.bus.heal(NODE)
    await equal(world)
    told = [subject.split(".")[4] for _, subject, _ in world.bus.sent[sent:] if ".s." in subject]
    assert set(opened[3:]) <= set(told)
    assert len(told) == len(set(told))


@in_fleet
async def test_how_often_it_reports_can_be_changed(world: BusWorld) -> None:
    """As by SIGHUP, from then on."""
    world.begin_process(ReportingPace(report_s=3600))
    client = await world.exit_.client()
    opened = await client.connect()
    await world.report()
    await world.use(opened["id"], 700)
    await world.report(3)
    assert await world.totals() != world.used
    world.reporting.report_each(0)
    await equal(world)


@in_fleet
async def test_reports_and_acknowledgements_that_are_lost(world: BusWorld) -> None:
    """What was not acknowledged is sent again, and counts once."""
    client = await world.exit_.client()
    opened = await client.connect()
    for lose in (world.bus.lose_requests, world.bus.lose_answers):
        await world.use(opened["id"])
        lose(f"wga.state.{NODE}.s.>")
        with pytest.raises(FleetError):
            await world.report()
        await equal(world)


@in_fleet
async def test_sessions_of_before_the_fleet(world: BusWorld) -> None:
    """An exit that comes into a fleet tells all it has; one that leaves notes nothing any more."""
    async with world.exit_.store.write() as db:
        await fleet_reports.end_reporting(db)
    client = await world.exit_.client()
    ended, live = await client.connect(), await client.connect()
    await world.use(ended["id"])
    await client.delete(ended["id"])
    await world.use(live["id"])
    assert world.exit_.rows("SELECT * FROM fleet_reports") == []
    async with world.exit_.store.write() as db:
        await fleet_reports.begin_reporting(db)
    assert [row[0] for row in world.exit_.rows("SELECT session_id FROM fleet_reports")] == [live["id"]]
    await equal(world)


@in_fleet
async def test_a_wiped_hub_has_everything_again(world: BusWorld) -> None:
    """Stream and fold are gone: digests differ, and all months are sent again."""
    client = await world.exit_.client()
    opened = [await client.connect() for _ in range(3)]
    for each in opened:
        await world.use(each["id"])
    await client.delete(opened[0]["id"])
    await equal(world)
    await world.wipe_hub()
    assert await world.totals() == {}
    await equal(world)
    assert world.reporting.resent == 3


@in_fleet
async def test_a_hub_that_was_rolled_back(world: BusWorld) -> None:
    """It lacks what was acknowledged, and its stream gives the same sequences again; all of it comes back."""
    client = await world.exit_.client()
    opened = await client.connect()
    await world.use(opened["id"])
    await equal(world)
    image = world.bus_streams.image(NODE)
    world.image_fold()
    for _ in range(3):
        await world.use(opened["id"])
        await world.report()
    ended = await client.connect()
    await client.delete(ended["id"])
    await equal(world)
    await world.roll_back_hub(image)
    assert await world.totals() == {opened["id"]: 1000}
    await equal(world)
    # The stream alone: what the fold has already, it keeps.
    world.bus_streams.roll_back(NODE, image)
    world.fold.reconnected()
    await world.use(opened["id"])
    await equal(world)


RESTORES = {
    "in the same boot": ("back_up", "use", "report", "use", "restore", "use"),
    "and nothing was told since": ("back_up", "use", "restore", "use"),
    "twice": ("back_up", "use", "report", "restore", "use", "report", "restore", "use"),
    "while cut off": ("back_up", "use", "report", "cut", "use", "restore", "use", "heal"),
    "while cut off, and rebooted": ("back_up", "use", "report", "cut", "restore", "use", "reboot", "use", "heal"),
    "after a reboot": ("back_up", "use", "report", "reboot", "use", "report", "restore", "use"),
    "with what was used before it was told": ("use", "back_up", "report", "restore", "use"),
    "and the hub is wiped": ("back_up", "use", "report", "wipe", "restore", "use"),
    "and the hub is rolled back": ("image", "back_up", "use", "report", "roll back the hub", "restore", "use"),
    "and reports are lost": ("back_up", "use", "lost report", "restore", "use"),
}


@pytest.mark.parametrize("marked", [True, False], ids=["restored", "rolled back unnoticed"])
@pytest.mark.parametrize("steps", RESTORES.values(), ids=RESTORES)
def test_a_store_that_went_back(tmp_path: Path, steps: tuple[str, ...], marked: bool) -> None:
    """Of what was told or the counters prove, nothing is lost and nothing counts twice."""
    asyncio.run(_go_back(tmp_path, steps, marked=marked))


async def lost_report(world: BusWorld) -> None:
    world.bus.lose_requests(f"wga.state.{NODE}.s.>", 2)
    with pytest.raises(FleetError):
        await world.report()


async def _go_back(folder: Path, steps: tuple[str, ...], *, marked: bool) -> None:
    async with reporting_world(folder) as world:
        client = await world.exit_.client()
        opened = [await client.connect(), await client.connect()]
        for each in opened:
            await world.use(each["id"], 3000)
        await world.report()
        image = world.bus_streams.image(NODE)
        acts: dict[str, Callable[[], Awaitable[object]]] = {
            "report": world.report,
            "lost report": lambda: lost_report(world),
            "restore": lambda: world.restore(marked=marked),
            "reboot": world.reboot,
            "wipe": world.wipe_hub,
            "roll back the hub": lambda: world.roll_back_hub(image),
        }
        at_once = {
            "back_up": world.back_up,
            "cut": lambda: world.bus.cut(NODE),
            "heal": lambda: world.bus.heal(NODE),
            "image": world.image_fold,
        }
        for number, step in enumerate(steps):
            if step == "use":
                await world.use(opened[0]["id"], 1000 + number)
                await world.use(opened[1]["id"], 10 * (number + 1))
            elif step in acts:
                await acts[step]()
            else:
                at_once[step]()
        await equal(world)


@in_fleet
async def test_sessions_that_only_the_hub_knows(world: BusWorld) -> None:
    """One opened after the backup is over once it is restored, with the figures that were told."""
    client = await world.exit_.client()
    await world.report()
    world.back_up()
    lost, ended = await client.connect(), await client.connect()
    await world.use(lost["id"])
    await world.use(ended["id"])
    await client.delete(ended["id"])
    await equal(world)
    await world.restore()
    await equal(world)
    told = await world.folded(lost["id"])
    assert told is not None
    assert (told.state, told.reason, told.report.account_id) == ("terminated", "admin", client.account.id)
    told = await world.folded(ended["id"])
    assert told is not None
    assert (told.state, told.reason) == ("terminated", "closed")


@in_fleet
async def test_a_session_that_had_ended_lives_again(world: BusWorld) -> None:
    """It ended after the backup; restored, it goes on, and the hub says so, with all its bytes."""
    client = await world.exit_.client()
    opened = await client.connect()
    await world.use(opened["id"])
    await equal(world)
    world.back_up()
    await world.use(opened["id"])
    await client.delete(opened["id"])
    await equal(world)
    await world.restore()
    await world.use(opened["id"], 300)
    await equal(world)
    told = await world.folded(opened["id"])
    assert told is not None
    assert told.state == "live"


@pytest.mark.parametrize("marked", [True, False], ids=["restored", "rolled back unnoticed"])
def test_one_backup_put_back_again_and_again(tmp_path: Path, marked: bool) -> None:
    """On one interface: a session had ended each time, or its peer stays, and moves before the hub has told of it."""

    async def story() -> None:
        async with reporting_world(tmp_path) as world:
            client = await world.exit_.client()
            ending, staying, silent = [(await client.connect())["id"] for _ in range(3)]
            await world.use(staying, 3000)
            world.back_up()
            for number, ends in enumerate((True, False, True, False)):
                for session_id in (ending, staying):
                    await world.use(session_id, 5000 + number)
                if ends:
                    await client.delete(ending)
                    await world.report()
                await world.restore(marked=marked)
                await world.use(ending, 700)
            await world.use(silent, 10)
            await equal(world)

    asyncio.run(story())


@in_fleet
async def test_a_failed_open_is_over_for_the_hub_too(world: BusWorld) -> None:
    """A session that was taken back after it was told stays no live one."""
    client = await world.exit_.client()
    opened = await client.connect()
    await world.report()
    await world.exit_.admin("DELETE FROM sessions WHERE id = ?", opened["id"])
    await world.report()
    told = await world.folded(opened["id"])
    assert told is not None
    assert (told.state, told.report.account_id) == ("terminated", client.account.id)
    own, theirs = await world.digests()
    assert own == theirs


@in_fleet
async def test_reporting_waits_for_the_hub(world: BusWorld) -> None:
    """As long as nobody answers what the hub has, no report leaves the exit."""
    client = await world.exit_.client()
    await client.connect()
    world.bus_streams.away = True
    with pytest.raises(FleetError):
        await world.report()
    assert [subject for _, subject, _ in world.bus.sent if ".s." in subject] == []
    world.bus_streams.away = False
    await equal(world)


STEPS = (
    *("use", "use", "report", "report", "lost report", "lost answer", "cut", "heal", "back_up", "image"),
    *("restore", "restore unnoticed", "restart", "wipe", "roll back the hub", "roll back the stream"),
)


@pytest.mark.parametrize("seed", range(4))
def test_schedules(tmp_path: Path, seed: int) -> None:
    """Within a boot every byte is proven: whatever happens, the hub has them all in the end, once."""
    asyncio.run(schedule(tmp_path, random.Random(seed), 30))  # noqa: S311 - decides what happens


async def schedule(folder: Path, chance: random.Random, length: int) -> list[str]:
    done = []
    async with reporting_world(folder) as world:
        client = await world.exit_.client()
        opened = [await client.connect(), await client.connect()]
        world.back_up()
        world.image_fold()
        image = world.bus_streams.image(NODE)
        for _ in range(length):
            done.append(chance.choice(STEPS))
            match done[-1]:
                case "use":
                    await world.use(chance.choice(opened)["id"], chance.randint(10, 5000))
                case "image":
                    world.image_fold()
                    image = world.bus_streams.image(NODE)
                case "roll back the stream":
                    world.bus_streams.roll_back(NODE, image)
                    world.fold.reconnected()
                case step:
                    await step_of(world, step, image)
        world.bus.heal(NODE)
        for _ in range(4):
            with suppress(FleetError):
                await world.report()
        assert await world.totals() == world.used, done
        await equal(world)
    return done


async def step_of(world: BusWorld, step: str, image: tuple[int, dict[str, tuple[int, bytes]]]) -> None:
    acts: dict[str, Callable[[], Awaitable[object]]] = {
        "report": lambda: world.report(3),
        "restore": world.restore,
        "restore unnoticed": lambda: world.restore(marked=False),
        "restart": world.restart,
        "wipe": world.wipe_hub,
        "roll back the hub": lambda: world.roll_back_hub(image),
    }
    at_once = {
        "cut": lambda: world.bus.cut(NODE),
        "heal": lambda: world.bus.heal(NODE),
        "back_up": world.back_up,
        "lost report": lambda: world.bus.lose_requests(f"wga.state.{NODE}.s.>"),
        "lost answer": lambda: world.bus.lose_answers(f"wga.state.{NODE}.s.>"),
    }
    if step in acts:
        with suppress(FleetError):
            await acts[step]()
    else:
        at_once[step]()
