"""Exits tell each other of themselves over a real hub: dead, cut off without a word, healed, drained, stopped.

One has a clock that is off; one is there twice.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from appliance.domain.clock import HostClock, Moment
from appliance.fleet.link.link import NatsLink
from appliance.fleet.status.doctor_facts import standing
from appliance.fleet.status.status import KnownTokens, ReportState, fleet_status
from appliance.fleet.status.status_file import NotedStatus
from appliance.ops.doctor import fleet
from appliance.ops.doctor.fleet import FleetFacts
from tests.support.fleet.hub_process import SECONDS, HubProcess
from tests.support.fleet.members import AMS, SIN, a_member
from tests.support.fleet.presence import PresentExit, a_present_exit
from tests.support.fleet.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import pytest

    from appliance.ops.doctor.finding import Finding

MEMBERS = [a_member(AMS, "ams1", "eu"), a_member(SIN, "sin1", "as")]
BOTH, EU, AS = [("as", 1), ("eu", 1)], [("eu", 1)], [("as", 1)]
LOOK_S, LONGEST_S = 0.02, 60.0


class OffClock(HostClock):
    """Has a wall clock that is ahead."""

    ahead_ms = 0

    def now(self) -> Moment:
        now = super().now()
        return Moment(now.wall_ms + self.ahead_ms, now.boot_ms, now.boot_id)


class LinkedExit:
    """Runs an exit's beats over a link of its own, through a relay."""

    def __init__(self, hub: HubProcess, id_: str, inst: str = "A") -> None:
        self._hub, self._inst = hub, inst
        self.clock, self.relay = OffClock(), Relay(hub.port)
        self.link = NatsLink(lambda: (hub.at(self.relay.port),), hub.user(id_), self.clock)
        self.member = next(each for each in MEMBERS if each.id == id_)
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self.exit = self._process()

    def _process(self) -> PresentExit:
        return a_present_exit(self.member, lambda: MEMBERS, self.link, self.clock, self._inst)

    async def copied(self) -> LinkedExit:
        """Another machine with the same keys, which runs too."""
        copy = LinkedExit(self._hub, self.member.id, "B")
        await copy.begin()
        return copy

    async def begin(self) -> None:
        await self.relay.listen()
        self.link.start()
        await self.link.wait_connected(SECONDS)
        await self.exit.beating.listen()
        self.run()

    def run(self) -> None:
        self._stopping.clear()
        self._task = asyncio.create_task(self.exit.beating.run(self._stopping))

    async def kill(self) -> None:
        """Beats end, without a last one."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def stop(self) -> None:
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def end(self) -> None:
        await self.kill()
        await self.link.close()
        await self.relay.cut()

    def found(self, check: Callable[[FleetFacts], Finding]) -> tuple[str, str]:
        """What doctor says there."""
        nodes, now = self.exit.nodes, self.clock.now()
        status = fleet_status(
            nodes.presences(),
            self.member.id,
            nodes.apart(),
            self.link.state,
            ReportState(),
            KnownTokens(hold=True, until=None),
            now,
        )
        noted = standing(NotedStatus(status, now.wall_ms, now.boot_ms, now.boot_id), now)
        finding = check(FleetFacts("spoke", now.wall_ms, served=True, hubs=(), standing=noted, certificates=()))
        return finding.status, finding.what

    @property
    def regions(self) -> list[tuple[str, int]]:
        return self.exit.nodes.regions()


async def until(holds: Callable[[], bool]) -> float:
    """Waits until it holds; returns for how many seconds."""
    began = time.monotonic()
    async with asyncio.timeout(LONGEST_S):
        while not holds():  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(LOOK_S)
    return time.monotonic() - began


@asynccontextmanager
async def two_exits(folder: Path) -> AsyncIterator[tuple[LinkedExit, LinkedExit]]:
    with HubProcess(folder, AMS, SIN) as hub:
        ams, sin = LinkedExit(hub, AMS), LinkedExit(hub, SIN)
        try:
            await ams.begin()
            await sin.begin()
            await until(lambda: ams.regions == sin.regions == BOTH)
            yield ams, sin
        finally:
            await ams.end()
            await sin.end()


def test_each_exit_knows_how_the_other_one_stands(tmp_path: Path, show: Callable[[str], None]) -> None:
    """Whatever happens to one, both lists are right soon, and right again soon after."""

    async def story() -> None:
        async with two_exits(tmp_path) as (ams, sin):
            await sin.kill()
            show(f"dead: noticed after {await until(lambda: ams.regions == EU):.2f} s")
            sin.run()
            show(f"back: after {await until(lambda: ams.regions == BOTH):.2f} s")
            sin.exit.node.drained = True
            show(f"drained: noticed after {await until(lambda: ams.regions == EU):.2f} s")
            sin.exit.node.drained = False
            await until(lambda: ams.regions == BOTH)
            await sin.stop()
            show(f"stopped: noticed after {await until(lambda: ams.regions == EU):.2f} s")
            sin.run()
            await until(lambda: ams.regions == BOTH)
            for to_hub, from_hub in ((True, True), (True, False), (False, True)):
                sin.relay.silence(to_hub, from_hub)
                noticed = await until(lambda: ams.regions == EU and sin.regions == AS)
                sin.relay.speak()
                healed = await until(lambda: ams.regions == sin.regions == BOTH)
                words = f"silence to the hub {to_hub}, from it {from_hub}"
                show(f"{words}: noticed by both after {noticed:.2f} s, healed after {healed:.2f} s")
            assert ams.exit.directory.dropped.total() == sin.exit.directory.dropped.total() == 0

    asyncio.run(story())


def test_a_clock_that_is_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By more than 2 s it is warned of, by more than 30 s doctor fails; by more than 5 min nobody is asked."""

    async def story() -> None:
        async with two_exits(tmp_path) as (ams, sin):
            assert ams.found(fleet.clocks)[0] == "ok"
            sin.clock.ahead_ms = 10_000
            await until(lambda: ams.found(fleet.clocks)[0] == "warning")
            await until(lambda: "the clock of sin1 differs from this host's by" in caplog.text)
            sin.clock.ahead_ms = 60_000
            await until(lambda: ams.found(fleet.clocks)[0] == "failed")
            assert ams.regions == sin.regions == BOTH
            sin.clock.ahead_ms = 400_000
            await until(lambda: ams.regions == EU)
            assert all(each.alive and each.asked for each in ams.exit.nodes.presences())

    asyncio.run(story())


def test_a_machine_that_is_there_twice(tmp_path: Path) -> None:
    """The hub lets both in; both refuse work for the fleet and say so, others ask neither, until one is stopped."""

    async def story() -> None:
        async with two_exits(tmp_path) as (ams, sin):
            copy = await sin.copied()
            try:
                await until(lambda: ams.regions == EU and sin.regions == copy.regions == AS)
                for each in (sin, copy):
                    await until(lambda each=each: each.found(fleet.machines)[0] == "failed")  # type: ignore[misc]
                    assert each.exit.directory.own_fault(each.clock.now()) == f"two machines are {SIN}"
                    assert f"two machines are {SIN}" in each.found(fleet.machines)[1]
                    assert each.link.connected
                assert not ams.exit.nodes.standing()[SIN]
            finally:
                await copy.end()
            # It is taken for one machine once the other was not heard for ten seconds, which the virtual clock shows.

    asyncio.run(story())
