"""Faults of whole hosts of a fleet, while accounts change and sessions move bytes. At the end all hosts agree, and the
hub knows what the exits have counted.

The truth is what was poured through the peers of sessions, and what commands have said to be done.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from tests.support.faults.violations import Violated
from tests.support.fleet.changes_made import ChangesMade
from tests.support.fleet.hosts_running import ACCOUNT, Junctions, RunningHost, free_net
from tests.support.fleet.poured import Poured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path
    from random import Random

    Fault = Callable[[], Awaitable[bool]]

MOST_LIVE = 6  # of an exit
LONGEST_CUT_S = 5.0
AGREE_WITHIN_S = 90.0


@dataclass
class HostFaultsDone:
    """Counts what was done. `seconds_to_agree`: after the last fault; `history`: when each began."""

    faults: Counter[str] = field(default_factory=Counter)
    changes: int = 0
    conflicts: int = 0
    sessions: int = 0
    poured: int = 0
    seconds_to_agree: float = 0.0
    history: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        listed = ", ".join(f"{many} {what}" for what, many in sorted(self.faults.items()))
        return (
            f"{self.faults.total()} faults ({listed}); {self.changes} changes of accounts and tokens, each of them on "
            f"all hosts or among {self.conflicts} conflicts; {self.sessions} sessions, {self.poured} bytes: all hosts "
            f"agree, and fold and lines equal the exits' counters, {self.seconds_to_agree:.1f} s after the last"
        )


class HostsUnderFaults:
    """Hosts of a fleet. The first founds it; `hubs`: how many of them are the hub or can be it."""

    def __init__(self, hosts: list[RunningHost], hubs: int, random: Random, done: HostFaultsDone) -> None:
        self.done = done
        self.hosts = hosts
        self.hubs = hosts[:hubs]
        self.junctions = Junctions(hosts, self.hubs)
        self.random = random
        self.changes = ChangesMade(random)
        self._healing: set[asyncio.Task[None]] = set()
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
        for task in self._healing:
            task.cancel()
        for each in self.hosts:
            await each.kill()
        await self.junctions.close()

    # What goes on meanwhile ------------------------------------------------------------------------------

    async def traffic(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            for each in self.hosts:
                if each.live and not each.still:
                    session = self.random.choice(list(each.live))
                    each.pour(session, self.random.randrange(1, 5000), self.random.randrange(1, 50_000))

    async def sessions(self, host: RunningHost) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(0.2, 1.2))
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

    def possible(self, host: RunningHost) -> dict[str, tuple[float, Fault]]:
        """Returns faults by name, with how often each is to be made; `host`: of which one is made."""
        return {
            "hosts killed": (3, lambda: self.killed(host)),
            "nats-servers killed": (3, self._nats_killed),
            "streams wiped": (1.5, self._wiped),
            "hosts cut off": (3, lambda: self.away(host, self.junctions.cut_off, self.junctions.heal)),
            "hosts silent": (2, lambda: self.away(host, self.junctions.silence, self.junctions.heal)),
            "hosts stopped": (2, lambda: self.away(host, RunningHost.stop, RunningHost.go_on)),
        }

    async def fault(self) -> None:
        """Makes one, of those that can be made now."""
        host = self.random.choice(self.hosts)
        possible = self.possible(host)
        (name,) = self.random.choices(list(possible), [weight for weight, _ in possible.values()])
        self.done.history.append(f"{datetime.now(UTC):%H:%M:%S.%f} {name} {host.name}")
        if await possible[name][1]():
            self.done.faults[name] += 1

    async def killed(self, host: RunningHost) -> bool:
        if host.name in self._busy:
            return False
        await host.kill(with_nats=self.random.random() < 0.5)
        await asyncio.sleep(self.random.uniform(0, 2))
        await host.start()
        return True

    def _free(self) -> list[RunningHost]:
        return [each for each in self.hosts if each.name not in self._busy]

    async def _nats_killed(self) -> bool:
        return sum(each.kill_nats() for each in self._free()) > 0

    async def _wiped(self) -> bool:
        """Of one host: its nats-server begins with nothing."""
        running = [each for each in self._free() if each.nats()]
        if not running:
            return False
        self.random.choice(running).wipe_streams()
        return True

    async def away(
        self, host: RunningHost, leave: Callable[[RunningHost], object], heal: Callable[[RunningHost], object]
    ) -> bool:
        """The host is healed some time later; meanwhile it has no other fault."""
        if host.name in self._busy or not host.runs:
            return False

        async def healed() -> None:
            await asyncio.sleep(self.random.uniform(0.2, LONGEST_CUT_S))
            heal(host)
            self._busy.discard(host.name)

        leave(host)
        self._busy.add(host.name)
        task = asyncio.create_task(healed())
        self._healing.add(task)
        task.add_done_callback(self._healing.discard)
        return True

    async def healed(self) -> None:
        while self._healing:
            await asyncio.wait(set(self._healing))

    async def some_time(self, longest_s: float = 4.0) -> None:
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

    async def compare(self) -> None:
        """Waits until all hosts agree and the hub has folded what was poured. Raises Violated if they do not."""
        for each in self.hosts:
            each.still = True
        await self.healed()
        began = time.monotonic()
        if not await self.within(AGREE_WITHIN_S, lambda: not self._differences()):
            raise Violated(f"after {AGREE_WITHIN_S:g} s: {self._differences()[:6]}")
        done, changes = self.done, self.changes
        done.seconds_to_agree = time.monotonic() - began
        if lost := await asyncio.to_thread(changes.lost, self.hosts):
            raise Violated(f"{len(lost)} changes are neither there nor listed: {lost[:6]}")
        if needless := await asyncio.to_thread(changes.needless, self.hosts):
            raise Violated(f"{len(needless)} conflicts are none: {needless[:6]}")
        done.changes = len(changes.made)
        done.conflicts = await asyncio.to_thread(changes.conflicting, self.hosts)
        done.sessions = sum(len(each.poured) for each in self.hosts)
        done.poured = sum(p.rx + p.tx for each in self.hosts for p in each.poured.values())

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
            busy = [group.create_task(hosts.traffic()), group.create_task(hosts.change())]
            busy += [group.create_task(hosts.sessions(each)) for each in hosts.hosts]
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
