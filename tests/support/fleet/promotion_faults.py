"""Faults of a fleet of a hub, its standby and a spoke, while accounts change and sessions move bytes; the standby is
promoted again and again. At the end all hosts agree, and the hub knows what the exits have counted.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.support.faults.violations import Violated
from tests.support.fleet.changes_made import ChangesMade
from tests.support.fleet.hosts_running import ACCOUNT, Junctions, RunningHost, free_net
from tests.support.fleet.members_running import Poured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path
    from random import Random

MOST_LIVE = 6  # of an exit
LONGEST_CUT_S = 5.0
AGREE_WITHIN_S = 90.0
READY_WITHIN_S = 60.0
GENERATION = "this host is the hub of generation "
BEHIND = ("changes of accounts, tokens or hosts", "has followed no change of generation")


@dataclass
class HubFaultsDone:
    """Counts what was done. `seconds_to_agree`: after the last fault; `history`: when each began."""

    faults: Counter[str] = field(default_factory=Counter)
    promotions: int = 0
    slowest_promotion_s: float = 0.0
    forced: int = 0
    changes: int = 0
    conflicts: int = 0
    sessions: int = 0
    poured: int = 0
    seconds_to_agree: float = 0.0
    history: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        listed = ", ".join(f"{many} {what}" for what, many in sorted(self.faults.items()))
        return (
            f"{self.faults.total()} faults ({listed}); {self.promotions} promotions, {self.forced} of them forced, "
            f"each a generation, in {self.slowest_promotion_s:.1f} s at most; {self.changes} changes of accounts and "
            f"tokens, of which {self.conflicts} rows are conflicts and the others are on each host; {self.sessions} "
            f"sessions, {self.poured} bytes: all hosts agree, and fold and lines equal the exits' counters, "
            f"{self.seconds_to_agree:.1f} s after the last"
        )


class PromotedFleet:
    """A hub, its standby and a spoke, in this order at first."""

    def __init__(self, hosts: list[RunningHost], junctions: Junctions, random: Random) -> None:
        self.done = HubFaultsDone()
        self.hosts = hosts
        self._junctions = junctions
        self._random = random
        self._changes = ChangesMade(random)
        self._healing: set[asyncio.Task[None]] = set()
        self._busy: set[str] = set()  # hosts that a fault has at the moment

    async def start(self) -> None:
        """Founds the fleet, as an operator does."""
        await self._junctions.listen()
        await asyncio.gather(*(each.start() for each in self.hosts))
        hub, standby, spoke = self.hosts

        async def do(host: RunningHost, *words: str) -> str:
            return (await asyncio.to_thread(host.do, *words)).out.strip()

        await do(hub, "token", "create", "--account", ACCOUNT, "--tier", "paid")
        await do(hub, "fleet", "init")
        for host, words in ((standby, ("--hub",)), (spoke, ())):
            await do(host, "node", "join", await do(hub, "fleet", "invite", *words), "--yes")

    async def close(self) -> None:
        for task in self._healing:
            task.cancel()
        for each in self.hosts:
            await each.kill()
        await self._junctions.close()

    # What goes on meanwhile ------------------------------------------------------------------------------

    async def traffic(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            for each in self.hosts:
                if each.live and not each.still:
                    session = self._random.choice(list(each.live))
                    each.pour(session, self._random.randrange(1, 5000), self._random.randrange(1, 50_000))

    async def sessions(self, host: RunningHost) -> None:
        while True:
            await asyncio.sleep(self._random.uniform(0.2, 1.2))
            if host.still:
                continue
            if len(host.live) >= MOST_LIVE or (host.live and self._random.random() < 0.3):
                await host.end_session(self._random.choice(list(host.live)))
            else:
                await host.begin_session()

    async def changes(self) -> None:
        """On each host that holds itself for the hub: of two, the others do not reach one another."""
        while True:
            await asyncio.sleep(self._random.uniform(0.3, 1.5))
            for each in self.hosts:
                standing = each.standing
                if standing is not None and standing.role == "hub" and not each.still:
                    await self._changes.make(each)

    # Faults ----------------------------------------------------------------------------------------------

    async def fault(self) -> None:
        """Makes one, of those that can be made now."""
        host = self._random.choice(self.hosts)
        made: dict[str, Callable[[], Awaitable[bool]]] = {
            "hosts killed": lambda: self._killed(host),
            "nats-servers killed": self._nats_killed,
            "hosts cut off": lambda: self._cut(host, self._junctions.cut_off),
            "hosts silent": lambda: self._cut(host, self._junctions.silence),
            "hosts stopped": lambda: self._stopped(host),
            "promotions, hub killed": lambda: self._promotion(self._hub_killed),
            "promotions, hub cut off": lambda: self._promotion(self._hub_cut_off),
            "promotions, hub there": lambda: self._promotion(self._hub_there),
            "promotions, standby behind": lambda: self._promotion(self._standby_behind),
            "promotions, command killed": lambda: self._promotion(self._command_killed),
        }
        weights = [3, 3, 3, 2, 2, 2, 2, 1.5, 2, 1.5]
        (name,) = self._random.choices(list(made), weights)
        self.done.history.append(f"{datetime.now(UTC):%H:%M:%S.%f} {name} {host.name}")
        if await made[name]():
            self.done.faults[name] += 1

    async def _killed(self, host: RunningHost) -> bool:
        if host.name in self._busy:
            return False
        await host.kill(with_nats=self._random.random() < 0.5)
        await asyncio.sleep(self._random.uniform(0, 2))
        await host.start()
        return True

    async def _nats_killed(self) -> bool:
        return sum(each.kill_nats() for each in self.hosts if each.name not in self._busy) > 0

    async def _cut(self, host: RunningHost, cut: Callable[[RunningHost], None]) -> bool:
        if host.name in self._busy:
            return False
        cut(host)
        self._later(host, self._junctions.heal)
        return True

    async def _stopped(self, host: RunningHost) -> bool:
        if host.name in self._busy or not host.runs:
            return False
        host.stop()
        self._later(host, RunningHost.go_on)
        return True

    def _later(self, host: RunningHost, heal: Callable[[RunningHost], object]) -> None:
        """The host is healed some time later; meanwhile it has no other fault."""

        async def healed() -> None:
            await asyncio.sleep(self._random.uniform(0.2, LONGEST_CUT_S))
            heal(host)
            self._busy.discard(host.name)

        self._busy.add(host.name)
        task = asyncio.create_task(healed())
        self._healing.add(task)
        task.add_done_callback(self._healing.discard)

    async def healed(self) -> None:
        while self._healing:
            await asyncio.wait(set(self._healing))

    # Promotions ------------------------------------------------------------------------------------------

    async def _promotion(self, how: Callable[[RunningHost, RunningHost], Awaitable[None]]) -> bool:
        """Waits until there are a hub and a standby, and has the standby promoted, with the hub's return."""
        await self.healed()
        if not await self._within(READY_WITHIN_S, lambda: self._pair() is not None):
            raise Violated(f"there is no hub with a standby: {[each.standing for each in self.hosts]}")
        pair = self._pair()
        assert pair is not None
        hub, standby = pair
        before = max(each.standing.gen for each in self.hosts if each.standing is not None)
        await how(hub, standby)
        now = standby.standing
        if now is None or (now.role, now.gen) != ("hub", before + 1):
            raise Violated(f"{standby.name} was promoted after generation {before}, and is {now}")
        self.done.promotions += 1
        return True

    def _pair(self) -> tuple[RunningHost, RunningHost] | None:
        """Returns the hub, and the host that is its standby by its own store; None: one of them is not that yet."""
        of = {role: [each for each in self.hosts if (s := each.standing) and s.role == role] for role in _ROLES}
        if len(of["hub"]) != 1 or len(of["standby"]) != 1:
            return None
        return of["hub"][0], of["standby"][0]

    async def _promote(self, standby: RunningHost, *, force: bool = False) -> None:
        """By the command; forced where it says that the standby lacks something. Raises Violated if it fails."""
        began = time.monotonic()
        done = await standby.command("fleet", "promote", *(["--force"] if force else []))
        assert done is not None
        if done.status and not force and any(each in done.err for each in BEHIND):
            await self._promote(standby, force=True)
            return
        if done.status or GENERATION not in done.err:
            raise Violated(f"promote on {standby.name}: {done}")
        self.done.forced += force
        self.done.slowest_promotion_s = max(self.done.slowest_promotion_s, time.monotonic() - began)

    async def _some_time(self, longest_s: float = 4.0) -> None:
        await asyncio.sleep(self._random.uniform(0, longest_s))

    async def _hub_killed(self, hub: RunningHost, standby: RunningHost) -> None:
        await hub.kill()
        await self._promote(standby)
        await self._some_time()
        await hub.start()

    async def _hub_cut_off(self, hub: RunningHost, standby: RunningHost) -> None:
        """Both lead meanwhile, and are told of changes."""
        self._junctions.cut_off(hub)
        await self._some_time(2)
        await self._promote(standby)
        await self._some_time()
        self._junctions.heal(hub)

    async def _hub_there(self, hub: RunningHost, standby: RunningHost) -> None:  # noqa: ARG002 (as the others)
        await self._promote(standby, force=True)

    async def _standby_behind(self, hub: RunningHost, standby: RunningHost) -> None:
        """The spoke has followed what the standby has not, as the hub dies."""
        self._junctions.silence(standby)
        for _ in range(3):
            await self._changes.make(hub)
        await self._some_time(2)
        await hub.kill()
        self._junctions.heal(standby)
        await self._promote(standby)
        await self._some_time()
        await hub.start()

    async def _command_killed(self, hub: RunningHost, standby: RunningHost) -> None:
        """The command is killed at any moment, and given again; the server may be promoted by then."""
        await hub.kill()
        await standby.command("fleet", "promote", "--force", killed_after_s=self._random.uniform(0.3, 3))
        now = standby.standing
        if now is None or now.role != "hub":
            await self._promote(standby)
        await hub.start()

    # The comparison --------------------------------------------------------------------------------------

    async def _within(self, seconds: float, holds: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.1)
        return True

    async def compare(self) -> None:
        """Waits until all hosts agree and the hub has folded what was poured. Raises Violated if they do not."""
        for each in self.hosts:
            each.still = True
        await self.healed()
        began = time.monotonic()
        if not await self._within(AGREE_WITHIN_S, lambda: not self._differences()):
            raise Violated(f"after {AGREE_WITHIN_S:g} s: {self._differences()[:6]}")
        done = self.done
        done.seconds_to_agree = time.monotonic() - began
        generations = {each.standing.gen for each in self.hosts if each.standing is not None}
        if generations != {1 + done.promotions}:
            raise Violated(f"{done.promotions} promotions, and generations {generations}")
        if lost := await asyncio.to_thread(self._changes.lost, self.hosts):
            raise Violated(f"{len(lost)} changes are neither there nor listed: {lost[:6]}")
        if needless := await asyncio.to_thread(self._changes.needless, self.hosts):
            raise Violated(f"{len(needless)} conflicts are none: {needless[:6]}")
        done.changes = len(self._changes.made)
        done.conflicts = await asyncio.to_thread(self._changes.conflicting, self.hosts)
        done.sessions = sum(len(each.poured) for each in self.hosts)
        done.poured = sum(p.rx + p.tx for each in self.hosts for p in each.poured.values())

    def _differences(self) -> list[object]:
        pair = self._pair()
        if pair is None:
            return [(each.name, each.standing) for each in self.hosts]
        hub, _ = pair
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


_ROLES = ("hub", "standby")


@asynccontextmanager
async def promoted_fleet(folder: Path, random: Random) -> AsyncIterator[PromotedFleet]:
    """Runs the fleet, with traffic and changes, until the end of the block."""
    net = free_net()
    hosts = [await asyncio.to_thread(RunningHost, folder / str(number), number, net) for number in range(3)]
    fleet = PromotedFleet(hosts, Junctions(hosts, hosts[:2]), random)
    try:
        await fleet.start()
        async with asyncio.TaskGroup() as group:
            busy = [group.create_task(fleet.traffic()), group.create_task(fleet.changes())]
            busy += [group.create_task(fleet.sessions(each)) for each in hosts]
            yield fleet
            for task in busy:
                task.cancel()
    except BaseException as error:
        for host in hosts:
            with suppress(OSError):
                error.add_note(f"{host.name}: {host.last_words()}")
        error.add_note("\n".join(fleet.done.history))
        raise
    finally:
        await fleet.close()
