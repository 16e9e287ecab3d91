"""Faults of whole hosts of a fleet, while accounts change and sessions move bytes. At the end all hosts agree, and the
hub knows what the exits have counted.

The truth is what was poured through the peers of sessions, and what commands have said to be done.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from tests.support.faults.violations import Violated
from tests.support.fleet.changes_made import ChangesMade
from tests.support.fleet.faults_done import FaultsDone
from tests.support.fleet.hosts_running import ACCOUNT, Junctions, RunningHost, free_net
from tests.support.fleet.poured import Poured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from pathlib import Path
    from random import Random

MOST_LIVE = 6  # of an exit
LONGEST_CUT_S = 5.0
AGREE_WITHIN_S = 90.0
AT_ONCE = 3


@dataclass(frozen=True)
class HostFault:
    """One that can be made. `weight`: how often; `hosts`: which it has meanwhile, as it begins; `make` gets them.

    It ends when what it did is healed. It tells whether there was anything to be done.
    """

    weight: float
    hosts: Callable[[], list[RunningHost]]
    make: Callable[..., Awaitable[bool]]


class HostsUnderFaults:
    """Hosts of a fleet. The first founds it; `hubs`: how many of them are the hub or can be it.

    Some faults go on at the same time, each on hosts of its own, as a task of `group`.
    """

    group: asyncio.TaskGroup

    def __init__(self, hosts: list[RunningHost], hubs: int, random: Random) -> None:
        self.done = FaultsDone()
        self.hosts = hosts
        self.hubs = hosts[:hubs]
        self.junctions = Junctions(hosts, self.hubs)
        self.random = random
        self.changes = ChangesMade(random)
        self._running: set[asyncio.Task[None]] = set()
        self._busy: set[str] = set()  # hosts that a fault has at the moment

    async def start(self) -> None:
        """Founds the fleet, as an operator does."""
        await self.junctions.listen()
        await asyncio.gather(*(each.start() for each in self.hosts))
        hub = self.hosts[0]
        await hub.do_beside("token", "create", "--account", ACCOUNT, "--tier", "paid")
        await hub.do_beside("fleet", "init")
        for number, host in enumerate(self.hosts[1:]):
            words = () if number else ("--hub",)
            await host.do_beside("node", "join", await hub.do_beside("fleet", "invite", *words), "--yes")

    async def close(self) -> None:
        for each in self.hosts:
            await each.kill()
        await self.junctions.close()

    # What goes on meanwhile ------------------------------------------------------------------------------

    def meanwhile(self) -> list[Coroutine[None, None, None]]:
        return [self.traffic(), self.change(), *(self.sessions(each) for each in self.hosts)]

    async def traffic(self) -> None:
        while True:
            await asyncio.sleep(0.15)
            for each in self.hosts:
                if each.live and not each.still:
                    session = self.random.choice(list(each.live))
                    each.pour(session, self.random.randrange(1, 5000), self.random.randrange(1, 50_000))

    async def sessions(self, host: RunningHost) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(0.4, 2))
            if host.still:
                continue
            if len(host.live) >= MOST_LIVE or (host.live and self.random.random() < 0.3):
                await host.end_session(self.random.choice(list(host.live)))
            else:
                await host.begin_session()

    async def change(self) -> None:
        """On each host that holds itself for the hub: of two, the others do not reach one another."""
        while True:
            await asyncio.sleep(self.random.uniform(0.3, 1.5))
            for each in self.hosts:
                standing = each.standing
                if standing is not None and standing.role == "hub" and not each.still:
                    await self.changes.make(each)

    # Faults ----------------------------------------------------------------------------------------------

    def possible(self, host: RunningHost) -> dict[str, HostFault]:
        """Returns faults by name; `host`: of which one is made."""

        def itself() -> list[RunningHost]:
            return [host]

        return {
            "hosts killed": HostFault(3, itself, self._killed),
            "nats-servers killed": HostFault(3, self._with_nats, self._nats_killed),
            "streams wiped": HostFault(1.5, self._with_nats, self._wiped),
            "hosts cut off": HostFault(3, itself, self.cut_off),
            "hosts silent": HostFault(2, itself, self.silenced),
            "hosts stopped": HostFault(2, itself, self._stopped),
        }

    async def fault(self) -> None:
        """Begins one, as soon as the hosts that it needs have no other."""
        possible = self.possible(self.random.choice(self.hosts))
        (name,) = self.random.choices(list(possible), [each.weight for each in possible.values()])
        chosen = possible[name]
        while len(self._running) >= AT_ONCE or self._busy & {each.name for each in chosen.hosts()}:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        hosts = chosen.hosts()
        self.note(name, *hosts)
        self._busy |= {each.name for each in hosts}
        self._running.add(self.group.create_task(self._made(name, chosen, hosts)))

    async def _made(self, name: str, fault: HostFault, hosts: list[RunningHost]) -> None:
        try:
            if await fault.make(*hosts):
                self.done.faults[name] += 1
        finally:
            self._busy -= {each.name for each in hosts}
            self._running -= {task for task in [asyncio.current_task()] if task is not None}

    def note(self, what: str, *hosts: RunningHost) -> None:
        """Of the history."""
        named = [each.name if each.standing is None else f"{each.name} ({each.standing.role})" for each in hosts]
        self.done.history.append(f"{datetime.now(UTC):%H:%M:%S.%f} {what} {' '.join(named)}")

    def _with_nats(self) -> list[RunningHost]:
        free = [each for each in self.hosts if each.name not in self._busy and each.nats()]
        return free[:1]

    async def _killed(self, host: RunningHost) -> bool:
        await host.kill(with_nats=self.random.random() < 0.5)
        await asyncio.sleep(self.random.uniform(0, 2))
        await host.start()
        return True

    async def _nats_killed(self, *hosts: RunningHost) -> bool:
        return sum(each.kill_nats() for each in hosts) > 0

    async def _wiped(self, *hosts: RunningHost) -> bool:
        """The nats-server begins with nothing."""
        for each in hosts:
            each.wipe_streams()
        return bool(hosts)

    async def cut_off(self, host: RunningHost) -> bool:
        self.junctions.cut_off(host)
        await self.a_while(host)
        self.junctions.heal(host)
        return True

    async def silenced(self, host: RunningHost) -> bool:
        """What is sent is held, as TCP holds what is dropped; it comes late, or never."""
        self.junctions.silence(host)
        await self.a_while(host)
        self.junctions.heal(host)
        return True

    async def _stopped(self, host: RunningHost) -> bool:
        host.stop()
        await self.a_while(host)
        host.go_on()
        return True

    async def a_while(self, *hosts: RunningHost) -> None:  # noqa: ARG002 (others look at them)
        """As long as a fault of these lasts."""
        await asyncio.sleep(self.random.uniform(0.2, LONGEST_CUT_S))

    async def healed(self) -> None:
        """Returns when no fault goes on."""
        while self._running:
            await asyncio.wait(self._running)

    async def some_time(self, longest_s: float = 2.5) -> None:
        await asyncio.sleep(self.random.uniform(0, longest_s))

    async def within(self, seconds: float, holds: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.1)
        return True

    # The comparison --------------------------------------------------------------------------------------

    def leader(self) -> RunningHost | None:
        """Returns the only hub by the hosts' own stores; None: it is not the only one, or others are not told yet."""
        of = [each.standing for each in self.hosts]
        found = [host for host, one in zip(self.hosts, of, strict=True) if one is not None and one.role == "hub"]
        standbys = sum(one is not None and one.role == "standby" for one in of)
        return found[0] if len(found) == 1 and standbys == len(self.hubs) - 1 else None

    async def await_well(self) -> None:
        """Returns when changes are taken again. Raises Violated if they are not."""

    async def compare(self) -> None:
        """Waits until all hosts agree and the hub has folded what was poured. Raises Violated if they do not."""
        for each in self.hosts:
            each.still = True
        await self.healed()
        began = time.monotonic()
        await self.await_well()
        async with self.changes.one_at_a_time:
            if not await self.within(AGREE_WITHIN_S, lambda: not self._differences()):
                raise Violated(f"after {AGREE_WITHIN_S:g} s: {self._differences()[:6]}")
            self.done.agreed_after_s.append(time.monotonic() - began)
            await self._compare_changes()
        self.done.compared["sessions"] = sum(len(each.poured) for each in self.hosts)
        self.done.compared["bytes"] = sum(p.rx + p.tx for each in self.hosts for p in each.poured.values())
        for each in self.hosts:
            each.still = False

    async def _compare_changes(self) -> None:
        """Raises Violated if one that was acknowledged is neither on all hosts nor among the conflicts of one."""
        changes, compared = self.changes, self.done.compared
        if lost := await asyncio.to_thread(changes.lost, self.hosts):
            raise Violated(f"{len(lost)} changes are neither there nor listed: {lost[:6]}")
        if needless := await asyncio.to_thread(changes.needless, self.hosts):
            raise Violated(f"{len(needless)} conflicts are none: {needless[:6]}")
        compared["changes of accounts and tokens"] = len(changes.made)
        compared["conflicts listed"] = await asyncio.to_thread(changes.conflicting, self.hosts)

    def _differences(self) -> list[object]:
        hub = self.leader()
        if hub is None:
            return [(each.name, each.standing) for each in self.hosts]
        agreed = hub.agreed()
        found: list[object] = []
        for each in self.hosts:
            own = each.agreed()
            found += [(each.name, what, own[what], "hub", agreed[what]) for what in agreed if own[what] != agreed[what]]
        for each in self.hosts:
            standing = each.standing
            assert standing is not None
            folded, billed = hub.folded(standing.node_id), hub.billed(standing.node_id)
            for session in {*each.poured, *folded, *billed}:  # of some the answers were lost
                of = [known.get(session, Poured()) for known in (each.poured, folded, billed)]
                if of != [of[0]] * 3:
                    found.append((each.name, session, *of))
        return found


H = TypeVar("H", bound=HostsUnderFaults)


async def made_hosts(folder: Path, many: int) -> list[RunningHost]:
    net = free_net()
    return [await asyncio.to_thread(RunningHost, folder / str(number), number, net) for number in range(many)]


@asynccontextmanager
async def under_faults(hosts: H) -> AsyncIterator[H]:
    """Runs them, with traffic and changes, until the end of the block."""
    try:
        await hosts.start()
        async with asyncio.TaskGroup() as group:
            hosts.group = group
            busy = [group.create_task(each) for each in hosts.meanwhile()]
            yield hosts
            for task in busy:
                task.cancel()
    except BaseException as error:
        for host in hosts.hosts:
            with suppress(OSError):
                error.add_note(f"{host.name}: {host.last_words()}")
        error.add_note("\n".join(hosts.done.history))
        raise
    finally:
        await hosts.close()
