"""Faults of a fleet of three hubs and a spoke, of which another hub leads by itself when the one that leads is gone."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.faults.violations import Violated
from tests.support.fleet.host_faults import HostFaultsDone, HostsUnderFaults, made_hosts, under_faults
from tests.support.fleet.hosts_running import RunningHost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path
    from random import Random

    from tests.support.fleet.host_faults import Fault

HUBS = 3
STOPPED_S, TWO_GONE_S = 10.0, 20.0
LONGEST_CUT_S = 15.0  # long enough for another hub to lead
WELL_WITHIN_S = 90.0


@dataclass
class FailoversDone(HostFaultsDone):
    """Notes beside faults after how many seconds another hub led, and until all was well again, from the fault on."""

    led_after_s: list[float] = field(default_factory=list)
    well_after_s: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        led, well = sorted(self.led_after_s), sorted(self.well_after_s)
        return (
            f"{len(led)} times another hub led, {_between(led)} after the fault; all was well {_between(well)} after "
            f"faults; {super().__str__()}"
        )


def _between(seconds: list[float]) -> str:
    """Of sorted ones."""
    return (
        f"{seconds[0]:.1f} to {seconds[-1]:.1f} s (median {seconds[len(seconds) // 2]:.1f} s)" if seconds else "never"
    )


class ClusteredFleet(HostsUnderFaults):
    """Three hubs and a spoke. One fault at a time: the next one when all is well."""

    done: FailoversDone

    def __init__(self, hosts: list[RunningHost], random: Random) -> None:
        super().__init__(hosts, HUBS, random, FailoversDone())

    async def start(self) -> None:
        await super().start()
        first = self.hosts[0]
        await self._await_told(first)
        await first.do_beside("fleet", "hubs", *(each.name for each in self.hubs))
        await self._await_well()

    async def _await_told(self, first: RunningHost) -> None:
        """Returns when the hub knows where the others would be dialled."""
        others = {each.name for each in self.hubs if each is not first}
        if not await self.within(WELL_WITHIN_S, lambda: others <= first.told_dialled()):
            raise Violated(f"only {first.told_dialled()} have told where they would be dialled")

    async def _await_well(self) -> None:
        """Returns when one leads, all follow it, and a second hub has what is changed from now on. Raises Violated."""
        changed: RunningHost | None = None
        head = 0

        async def is_well() -> bool:
            nonlocal changed, head
            leader = self.leader()
            generations = {each.standing.gen for each in self.hosts if each.standing is not None}
            if leader is None or len(generations) != 1:
                return False
            if leader is not changed:
                if not await self.changes.make(leader):
                    return False
                changed, ((head,),) = leader, leader.rows("SELECT max(rev) FROM fleet_changes")
            return bool(leader.rows("SELECT 1 FROM fleet WHERE kept_gen = gen AND kept_rev >= ?", head))

        deadline = time.monotonic() + WELL_WITHIN_S
        while not await is_well():
            if time.monotonic() > deadline:
                kept = [
                    (each.name, each.rows("SELECT role, gen, acc_rev, kept_gen, kept_rev FROM fleet"))
                    for each in self.hosts
                ]
                raise Violated(f"not well after {WELL_WITHIN_S:g} s: {kept}, of which change {head} is to be kept")
            await asyncio.sleep(0.1)

    def possible(self, host: RunningHost) -> dict[str, tuple[float, Fault]]:
        hub = self.random.choice(self.hubs)
        two = self.random.sample(self.hubs, 2)
        made: dict[str, tuple[float, Callable[[], Awaitable[None]]]] = {
            "exits killed": (1, lambda: self._gone([host], self.random.uniform(0, 4))),
            "nats-servers killed": (3, lambda: self._nats_of(hub, RunningHost.kill_nats)),
            "streams of a hub wiped": (2, lambda: self._nats_of(hub, RunningHost.wipe_streams)),
            "hubs killed": (3, lambda: self._gone([hub], self.random.uniform(0, LONGEST_CUT_S))),
            "leading hubs killed": (2, lambda: self._gone([self._first()], self.random.uniform(0, LONGEST_CUT_S))),
            "hubs cut off": (2, lambda: self._cut_off(hub)),
            "leading hubs cut off": (2, lambda: self._cut_off(self._first())),
            "leading hubs stopped for 10 s": (2, lambda: self._stopped(self._first())),
            "two of three gone for 20 s": (1, lambda: self._gone(two, TWO_GONE_S)),
        }
        return {name: (weight, lambda fault=fault: self._alone(fault)) for name, (weight, fault) in made.items()}  # type: ignore[misc]

    def _first(self) -> RunningHost:
        return self.leader() or self.hubs[0]

    async def _alone(self, fault: Callable[[], Awaitable[None]]) -> bool:
        """Makes it when all is well, and returns when all is well again. Raises Violated if it does not become so."""
        before, began = self._newest(), time.monotonic()
        watching = asyncio.create_task(self._await_newer(before))
        try:
            await fault()
            await asyncio.sleep(1)  # the hosts have noticed
            await self._await_well()
        finally:
            watching.cancel()
        self.done.well_after_s.append(time.monotonic() - began)
        if self._newest() > before and watching.done() and not watching.cancelled():
            self.done.led_after_s.append(watching.result() - began)
        return True

    def _newest(self) -> int:
        return max(each.standing.gen for each in self.hosts if each.standing is not None)

    async def _await_newer(self, generation: int) -> float:
        while self._newest() <= generation:  # noqa: ASYNC110 (of other processes)
            await asyncio.sleep(0.1)
        return time.monotonic()

    def _note(self, *hosts: RunningHost) -> None:
        leader = self.leader()
        named = [f"{each.name} (leads)" if each is leader else each.name for each in hosts]
        self.done.history.append(f"  of {', '.join(named)}, generation {self._newest()}")

    async def _nats_of(self, hub: RunningHost, fault: Callable[[RunningHost], object]) -> None:
        self._note(hub)
        fault(hub)

    async def _gone(self, hosts: list[RunningHost], seconds: float) -> None:
        self._note(*hosts)
        for each in hosts:
            await each.kill()
        await asyncio.sleep(seconds)
        for each in hosts:
            await each.start()

    async def _cut_off(self, hub: RunningHost) -> None:
        self._note(hub)
        self.junctions.cut_off(hub)
        await asyncio.sleep(self.random.uniform(1, LONGEST_CUT_S))
        self.junctions.heal(hub)

    async def _stopped(self, hub: RunningHost) -> None:
        """All of the host stands still, its nats-server too."""
        self._note(hub)
        hub.stop(with_nats=True)
        await asyncio.sleep(STOPPED_S)
        hub.go_on()


@asynccontextmanager
async def clustered_fleet(folder: Path, random: Random) -> AsyncIterator[ClusteredFleet]:
    """Runs the fleet, with traffic and changes, until the end of the block."""
    async with under_faults(ClusteredFleet(await made_hosts(folder, HUBS + 1), random)) as fleet:
        yield fleet
