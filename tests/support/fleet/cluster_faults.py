"""Faults of a fleet of three hubs and a spoke, of which another hub leads by itself when the one that leads is gone."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.support.faults.violations import Violated
from tests.support.fleet.host_faults import HostFault, HostsUnderFaults, made_hosts, under_faults

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from pathlib import Path
    from random import Random

    from tests.support.fleet.hosts_running import RunningHost

HUBS = 3
SHORT_S, LONGEST_S = (0.2, 5.0), 12.0
MOSTLY = 0.7
CAUGHT_UP_S = 3.0  # a nats-server that began with nothing has the others' records by then
WELL_WITHIN_S = 90.0


class ClusteredFleet(HostsUnderFaults):
    """Three hubs and a spoke. Any of them fail at the same time; a hub loses its streams while the others are well."""

    def __init__(self, hosts: list[RunningHost], random: Random) -> None:
        super().__init__(hosts, HUBS, random)

    async def start(self) -> None:
        await super().start()
        first = self.hosts[0]
        await self._await_told(first)
        await first.do_beside("fleet", "hubs", *(each.name for each in self.hubs))
        await self.await_well()

    def meanwhile(self) -> list[Coroutine[None, None, None]]:
        return [*super().meanwhile(), self._watch()]

    async def _await_told(self, first: RunningHost) -> None:
        """Returns when the hub knows where the others would be dialled."""
        others = {each.name for each in self.hubs if each is not first}
        if not await self.within(WELL_WITHIN_S, lambda: others <= first.told_dialled()):
            raise Violated(f"only {first.told_dialled()} have told where they would be dialled")

    async def await_well(self) -> None:
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

    def possible(self, host: RunningHost) -> dict[str, HostFault]:
        hub = host if host in self.hubs else self.random.choice(self.hubs)
        two = self.random.sample(self.hubs, 2)

        def one() -> list[RunningHost]:
            return [hub]

        def first() -> list[RunningHost]:
            return [self._first()]

        return {
            "spokes killed": HostFault(1, lambda: self.hosts[HUBS:], self._gone),
            "spokes cut off": HostFault(1, lambda: self.hosts[HUBS:], self.cut_off),
            "nats-servers killed": HostFault(3, one, self._nats_killed),
            "streams of a hub wiped": HostFault(
                1.5, lambda: [hub, *(h for h in self.hubs if h is not hub)], self._lost
            ),
            "hubs killed": HostFault(3, one, self._gone),
            "leading hubs killed": HostFault(2, first, self._gone),
            "hubs cut off": HostFault(2, one, self.cut_off),
            "leading hubs cut off": HostFault(2, first, self.cut_off),
            "hubs silent": HostFault(1, one, self.silenced),
            "leading hubs silent": HostFault(1, first, self.silenced),
            "leading hubs stopped": HostFault(2, first, self._stopped),
            "two of three gone": HostFault(1, lambda: two, self._gone),
        }

    def _first(self) -> RunningHost:
        """Returns the hub that leads by its own store, in the newest generation; while it is not known, some hub."""
        return self._leading() or self.hubs[0]

    def _leading(self) -> RunningHost | None:
        of = [(each, each.standing) for each in self.hubs]
        leading = [(one.gen, each) for each, one in of if one is not None and one.role == "hub"]
        return max(leading, key=lambda each: each[0])[1] if leading else None

    async def _watch(self) -> None:
        """Counts how often another hub leads, and the generations."""
        led: RunningHost | None = self._first()
        began = self._newest()
        while True:
            await asyncio.sleep(0.2)
            leads = self._leading()
            if leads not in (None, led):
                self.done.happened["changes of leader"] += 1
                led = leads
            self.done.happened["generations"] = self._newest() - began

    def _newest(self) -> int:
        return max(each.standing.gen for each in self.hubs if each.standing is not None)

    async def a_while(self, *hosts: RunningHost) -> None:
        """A short one, or, of the hub that leads, mostly until another hub leads."""
        before, led = self._newest(), self._first() in hosts
        await asyncio.sleep(self.random.uniform(*SHORT_S))
        if led and self.random.random() < MOSTLY:
            await self.within(LONGEST_S, lambda: self._newest() > before)

    async def _gone(self, *hosts: RunningHost) -> bool:
        for each in hosts:
            await each.kill()
        await self.a_while(*hosts)
        await asyncio.gather(*(each.start() for each in hosts))
        return True

    async def _stopped(self, host: RunningHost) -> bool:
        """All of the host stands still, its nats-server too."""
        host.stop(with_nats=True)
        await self.a_while(host)
        host.go_on()
        return True

    async def _lost(self, hub: RunningHost, *_: RunningHost) -> bool:
        """A nats-server begins with nothing, while a majority has it all, until it has it again."""
        await self.await_well()
        hub.wipe_streams()
        await asyncio.sleep(CAUGHT_UP_S)
        await self.await_well()
        return True


@asynccontextmanager
async def clustered_fleet(folder: Path, random: Random) -> AsyncIterator[ClusteredFleet]:
    """Runs the fleet, with traffic and changes, until the end of the block."""
    async with under_faults(ClusteredFleet(await made_hosts(folder, HUBS + 1), random)) as fleet:
        yield fleet
