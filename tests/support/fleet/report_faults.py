"""Faults of a fleet, one after another, while sessions come, go and move bytes; at the end the fold must be the truth.

The truth is what was poured through the peers of the exits' sessions: what their counters have counted.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import time
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.support.faults.violations import Violated
from tests.support.fleet.asked_process import MemberDied
from tests.support.fleet.faults_done import FaultsDone
from tests.support.fleet.hub_process import HubProcess
from tests.support.fleet.members_running import FoldingHub, ReportingExit
from tests.support.fleet.poured import Poured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path
    from random import Random

NODES = tuple("nod_" + letter * 24 for letter in "abc")
MOST_LIVE = 8  # of an exit
LONGEST_SILENCE_S = 6.0
EQUAL_WITHIN_S = 90.0


class FaultyFleet:
    """Three exits, the hub's fold and its nats-server."""

    def __init__(self, folder: Path, nats: HubProcess, random: Random) -> None:
        self.done = FaultsDone()
        self._folder = folder
        self._nats = nats
        self._random = random
        self.exits = [ReportingExit(folder / node, node, nats) for node in NODES]
        self.hub = FoldingHub(folder / "hub", nats, NODES)
        self._streams = nats.folder / "jetstream"
        self._copies: list[Path] = []  # of the streams
        self._images: list[tuple[Path, Path]] = []  # of the streams and the hub's store, of one moment
        self._healing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await asyncio.gather(*(member.start() for member in (self.hub, *self.exits)))
        for each in self.exits:
            each.back_up()

    async def close(self) -> None:
        for member in (self.hub, *self.exits):
            await member.close()

    # What goes on meanwhile ------------------------------------------------------------------------------

    async def traffic(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            for each in self.exits:
                if each.live and not each.still:
                    session = self._random.choice(list(each.live))
                    each.pour(session, self._random.randrange(1, 5000), self._random.randrange(1, 50_000))

    async def sessions(self, exit_: ReportingExit) -> None:
        """They come and go. Of one that is to be closed the traffic has ended."""
        closing_: list[str] = []
        while True:
            await asyncio.sleep(self._random.uniform(0.05, 0.4))
            if exit_.still:
                continue
            with suppress(MemberDied):
                if closing_:
                    if await exit_.ask(do="close", session=closing_[0]) is not None:
                        closing_.pop()
                    elif closing_[0] not in {session for session, _ in await exit_.ask(do="live")}:
                        closing_.pop()  # the store that was put back has it not
                elif len(exit_.live) >= MOST_LIVE or (exit_.live and self._random.random() < 0.3):
                    closing_.append(self._random.choice(list(exit_.live)))
                    del exit_.live[closing_[0]]
                else:
                    key = os.urandom(32)
                    session = await exit_.ask(do="open", key=key.hex())
                    if session is not None:
                        exit_.live[session] = key
                        exit_.poured.setdefault(session, Poured())

    # Faults ----------------------------------------------------------------------------------------------

    async def fault(self) -> None:
        """Makes one, of those that can be made now."""
        exit_ = self._random.choice(self.exits)
        made: dict[str, Callable[[], Awaitable[bool]]] = {
            "exits killed": lambda: self._killed(exit_),
            "folds killed": lambda: self._killed(self.hub),
            "nats-servers killed": self._nats_killed,
            "silences": lambda: self._silenced(self._random.choice((exit_, self.hub))),
            "silences one way": lambda: self._silenced(exit_, one_way=True),
            "connections cut": lambda: self._cut(self._random.choice((exit_, self.hub))),
            "streams wiped": self._wiped,
            "streams rolled back": self._rolled_back,
            "hub's images put back": self._image_put_back,
            "folds lost": self._fold_lost,
            "hosts rebooted": lambda: self._rebooted(exit_),
            "stores restored": lambda: self._restored(exit_, marked=True),
            "stores rolled back": lambda: self._restored(exit_, marked=False),
        }
        weights = [6, 3, 4, 4, 2, 3, 1, 2, 1, 1, 1.5, 1.5, 1.5]
        (name,) = self._random.choices(list(made), weights)
        self.done.history.append(f"{datetime.now(UTC):%H:%M:%S.%f} {name} {exit_.node[:5]}")
        if await made[name]():
            self.done.faults[name] += 1
        if self._random.random() < 0.2:
            exit_.back_up()

    async def _killed(self, member: ReportingExit | FoldingHub) -> bool:
        await member.kill()
        await asyncio.sleep(self._random.uniform(0, 0.5))
        if self._random.random() < 0.2:  # the start is killed too
            starting = asyncio.create_task(member.start())
            await asyncio.sleep(self._random.uniform(0, 2))
            await member.kill()
            await starting
            await member.kill()  # on a busy machine there was no process yet to be killed
        await member.start()
        return True

    async def _nats_killed(self, meanwhile: Callable[[], None] = lambda: None) -> bool:
        self._nats.kill()
        meanwhile()
        await asyncio.sleep(self._random.uniform(0, 1))
        await asyncio.to_thread(self._nats.start)
        return True

    async def _silenced(self, member: ReportingExit | FoldingHub, *, one_way: bool = False) -> bool:
        """What is sent is held, as TCP holds what is dropped; it comes late, or never."""
        to_target = not one_way or self._random.random() < 0.5
        member.relay.silence(to_target=to_target, from_target=not (one_way and to_target))

        async def speak() -> None:
            await asyncio.sleep(self._random.uniform(0.2, LONGEST_SILENCE_S))
            member.relay.speak()

        self._later(speak())
        return True

    async def _cut(self, member: ReportingExit | FoldingHub) -> bool:
        await member.relay.cut()

        async def heal() -> None:
            await asyncio.sleep(self._random.uniform(0, 2))
            await member.relay.listen()

        if any(task.get_name() == member.node for task in self._healing):
            return False
        self._later(heal(), member.node)
        return True

    def _later(self, heal: object, name: str = "") -> None:
        task: asyncio.Task[None] = asyncio.create_task(heal, name=name)  # type: ignore[arg-type]
        self._healing.add(task)
        task.add_done_callback(self._healing.discard)

    async def _wiped(self) -> bool:
        return await self._nats_killed(lambda: shutil.rmtree(self._streams, ignore_errors=True))

    async def _rolled_back(self) -> bool:
        """The streams are those of an earlier moment; if there is no copy yet, one is made."""
        if not self._copies or self._random.random() < 0.3:
            await self._nats_killed(lambda: self._copies.append(self._copied(self._streams)))
            return False
        return await self._nats_killed(lambda: self._put_back(self._random.choice(self._copies)))

    def _copied(self, what: Path) -> Path:
        copy = self._folder / f"copy{time.monotonic_ns()}"
        shutil.copytree(what, copy)
        return copy

    def _put_back(self, copy: Path) -> None:
        shutil.rmtree(self._streams, ignore_errors=True)
        shutil.copytree(copy, self._streams)

    async def _image_put_back(self) -> bool:
        """The hub's machine is that of an earlier moment: its streams and its store."""
        if not await self._adopted():
            return False  # what no exit has any more the hub alone knows
        await self.hub.kill()
        old = self._random.choice(self._images) if self._images and self._random.random() < 0.7 else None
        await self._nats_killed(lambda: self._take_image() if old is None else self._put_image_back(*old))
        await self.hub.start()
        return old is not None

    def _take_image(self) -> None:
        store = self._folder / f"image{time.monotonic_ns()}"
        self.hub.copy_store(store)
        self._images.append((self._copied(self._streams), store))

    def _put_image_back(self, streams: Path, store: Path) -> None:
        self._put_back(streams)
        self.hub.put_store(store)

    async def _fold_lost(self) -> bool:
        """What the hub has folded is lost, with its store."""
        if not await self._adopted():
            return False
        await self.hub.kill()
        self.hub.remove_store()
        await self.hub.start()
        return True

    async def _rebooted(self, exit_: ReportingExit) -> bool:
        """The host boots, or its interface alone is lost: all that its counters say has been read before."""
        exit_.still = True
        reported = await self._within(20, lambda: _has(self.hub.folded(exit_.node), exit_.poured))
        if reported:
            await exit_.kill()
            exit_.tunnel.forget()
            exit_.forgotten = {session: replace(had) for session, had in exit_.poured.items()}
            exit_.boots += self._random.random() < 0.7
            await exit_.start()
        exit_.still = False
        return reported

    async def _restored(self, exit_: ReportingExit, *, marked: bool) -> bool:
        """Sessions that are not live in the backup lose their peers, and others have lost them before: of their bytes
        nobody knows any more, so they were reported, and so was what counters had that a boot has taken. What the rest
        has moved since then their counters tell.

        `marked`: by `restore`; else nobody has told the store that it went back.
        """
        backup = self._random.choice(exit_.backups)
        exit_.still = True
        kept = backup.live & exit_.live.keys()
        lost = {session: exit_.poured[session] for session in exit_.poured.keys() - kept}

        def known() -> bool:
            folded = self.hub.folded(exit_.node)
            forgotten = exit_.forgotten.items()
            return _has(folded, lost) and all(folded.get(one, Poured()).has(least) for one, least in forgotten)

        reported = await self._within(20, known)
        if reported:
            await exit_.kill()
            exit_.put_store(backup.store)
            if marked:
                with closing(sqlite3.connect(exit_.store)) as db, db:
                    db.execute("UPDATE fleet_reporting SET restored = 1")
            await exit_.start()
            exit_.put_back({session: bytes.fromhex(key) for session, key in await exit_.ask(do="live")})
        exit_.still = False
        return reported

    async def _adopted(self) -> bool:
        """Whether each exit knows all sessions that there were ever."""

        def known() -> bool:
            return all(
                each.poured.keys() <= {row[0] for row in each.rows("SELECT session_id FROM fleet_reports")}
                for each in self.exits
            )

        return await self._within(20, known)

    async def _within(self, seconds: float, holds: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.1)
        return True

    # The comparison --------------------------------------------------------------------------------------

    async def compare(self) -> None:
        """Waits until what is folded, and billed, is what was poured. Raises Violated if it does not become so."""
        for each in self.exits:
            each.still = True
        while self._healing:
            await asyncio.wait(set(self._healing))
        began = time.monotonic()
        if not await self._within(EQUAL_WITHIN_S, lambda: not self._differences()):
            differing = self._differences()
            raise Violated(f"{len(differing)} sessions differ, poured and folded: {differing[:5]}")
        self.done.agreed_after_s.append(time.monotonic() - began)
        self.done.compared["sessions"] = sum(len(each.poured) for each in self.exits)
        self.done.compared["bytes"] = sum(p.rx + p.tx for each in self.exits for p in each.poured.values())
        for each in self.exits:
            each.still = False

    def _differences(self) -> list[tuple[str, str, Poured, Poured | None]]:
        found: list[tuple[str, str, Poured, Poured | None]] = []
        for each in self.exits:
            folded = self.hub.folded(each.node)
            for session, poured in each.poured.items():
                if folded.get(session, Poured()) != poured:
                    found.append((each.node[:6], session, poured, folded.get(session)))
            billed = self.hub.billed(each.node)
            found += [
                (each.node[:6], one, p, billed.get(one))
                for one, p in each.poured.items()
                if billed.get(one, Poured()) != p
            ]
            unknown = folded.keys() - each.poured.keys()  # their answers were lost
            found += [(each.node[:6], one, Poured(), folded[one]) for one in unknown if folded[one] != Poured()]
        return found


def _has(folded: dict[str, Poured], wanted: dict[str, Poured]) -> bool:
    return all(folded.get(session, Poured()) == poured for session, poured in wanted.items())


@asynccontextmanager
async def faulty_fleet(folder: Path, random: Random) -> AsyncIterator[FaultyFleet]:
    """Runs the fleet, with traffic, until the end of the block."""
    with HubProcess(folder / "nats", *NODES) as nats:
        fleet = FaultyFleet(folder, nats, random)
        try:
            await fleet.start()
            async with asyncio.TaskGroup() as group:
                busy = [group.create_task(fleet.traffic())]
                busy += [group.create_task(fleet.sessions(each)) for each in fleet.exits]
                yield fleet
                for task in busy:
                    task.cancel()
        except BaseException as error:
            for member in (fleet.hub, *fleet.exits):
                error.add_note(f"{member.node}: {member.last_words()}")
            error.add_note("\n".join(fleet.done.history))
            raise
        finally:
            await fleet.close()
