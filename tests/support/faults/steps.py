"""What can happen to an exit. Each step draws what it needs from its own seed, so that it stays the same step
when others are left out of the schedule."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from appliance.domain.entities import Reason, State
from appliance.domain.errors import ApplianceError
from appliance.domain.tiers import Tier
from appliance.sessions.opening import SessionRequest
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import node as node_row
from appliance.store.queries import sessions as rows
from tests.support.faults import device_steps
from tests.support.faults.process import Failing, Killed
from tests.support.faults.world import ACCOUNTS, VARIANTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from appliance.server.assembly import Parts
    from appliance.sessions.waiting import Queue
    from tests.support.faults.process import Process
    from tests.support.faults.world import World

NAMES = [name for name, _ in ACCOUNTS]
HOUR = 3_600_000
PAUSES = (
    1,
    400,
    1000,
    1000,
    5000,
    10_000,
    10_000,
    60_000,
    100_000,
    179_999,
    180_000,
    200_000,
    290_000,
    310_000,
    HOUR,
    5 * HOUR,
    7 * HOUR,
)
STEPS = (-13 * HOUR, -2 * HOUR, -HOUR, -1, 1, HOUR, 3 * HOUR, 26 * HOUR)
SIZES = (0, 0, 1, 700, 1500, 9000, 50_000, 2**20, 2**31 + 7, 2**40)
MOST_OPERATIONS = 45  # of one action; those that are shorter are not cut
REBUILDS = 3
LATEST_TURN = 60  # of the event loop, in which a command comes that is given while others are at work
UNDONE_WITHIN = 50  # batches; those whose statements or changes fail as well


class Step(NamedTuple):
    kind: str
    seed: int


class Steps:
    """Does steps on a world, and has a `look` at it in between.

    `ticked`, `whole` and `settled` say what the last one was (see `Invariants.check`).
    """

    def __init__(self, world: World, look: Callable[[], Awaitable[None]]) -> None:
        self.world = world
        self._look = look
        self.ticked = False
        self.whole = False
        self.settled = False
        self._random = Random(0)  # noqa: S311 (a test's choices)
        self._leaving = False
        self._clients: list[asyncio.Task[object]] = []  # those that may leave

    async def do(self, step: Step) -> None:
        self._random = Random(step.seed)  # noqa: S311
        self.ticked = self.whole = self.settled = False
        await getattr(self, step.kind)()

    # Requests and ticks ------------------------------------------------------------------------------

    async def open(self) -> None:
        await self._together([self._open])

    async def replace(self) -> None:
        await self._together([self._replace])

    async def close(self) -> None:
        await self._together([self._close])

    async def tick(self) -> None:
        self.whole = self._random.random() < 0.4
        undone_meanwhile = self._has_to_undo()
        await self._together([lambda parts: parts.ticker.tick(whole=self.whole)])
        if undone_meanwhile:  # another tick follows at once
            undone_meanwhile = self._has_to_undo()
            await self._together([lambda parts: parts.ticker.tick(whole=self.whole)])
        parts = self.world.parts
        self.ticked = parts is not None and parts.node.health.fault is None and not undone_meanwhile

    async def settle(self) -> None:
        """Nothing fails for some seconds, and at last nothing happens between two ticks."""
        self.world.end_faults()
        for pause_ms in (0, 1000, 2000, 0, 0):
            self.world.host.run(pause_ms)
            await self._together([lambda parts: parts.ticker.tick()])
        parts = self.world.parts
        self.settled = parts is not None and parts.node.health.fault is None

    async def lapse(self) -> None:
        """A device is connected as its session reaches its end, which is at once the next one's beginning."""
        world, parts = self.world, self.world.parts
        world.end_faults()
        connected = [] if parts is None else [session for session in parts.live if session.device_id]
        if not connected:
            return
        session = self._random.choice(connected)
        for pause_ms in (0, 1000):  # no other look is as late as the one after the end
            world.host.run(pause_ms)
            await self._together([lambda parts: parts.ticker.tick()])
        world.host.run(max(0, session.expires_at - world.now().wall_ms - self._random.choice((1, 900, 4000))))
        if session.public_key in world.kernel.peers:
            device_steps.send(world, session.public_key, self._random, SIZES, handshake=True)
        for pause_ms in (0, 1000, 3000, 0, 0):
            world.host.run(pause_ms)
            await self._together([lambda parts: parts.ticker.tick()])
        self.settled = self.world.parts is not None and self.world.parts.node.health.fault is None

    async def reload(self) -> None:
        """The configuration is read again by the process that runs."""
        read = self.world.settings = self._random.choice(VARIANTS)

        async def action(parts: Parts) -> None:
            await parts.ticker.settle(read.tiers)
            parts.services.terms.take_over(read)
            await parts.ticker.tick()

        await self._together([action])

    async def busy(self) -> None:
        """Several at once, while time passes and clients send."""
        await self._together(self._actions(self._random.randint(2, 5)), busy=True)

    async def leave(self) -> None:
        """Clients go while their requests are served: of those that are not answered nothing is left."""
        self._clients.clear()
        self._leaving = True
        try:
            await self._together(self._actions(self._random.randint(2, 6)), busy=True)
        finally:
            self._leaving = False
        parts = self.world.parts
        for _ in range(UNDONE_WITHIN):
            if parts is None or not self._has_to_undo():
                break
            parts.ticker._turnover._ending.go_on()
            await parts.queue.settled()
            await asyncio.sleep(0)

    async def crash(self) -> None:
        """The process dies in the middle of something; later there is another one, which may die as well."""
        many = 1 if self._random.random() < 0.7 else self._random.randint(2, 3)
        await self._together(self._actions(many), busy=self._random.random() < 0.5, die=True)
        if self.world.running is None or self.world.running.process.dead:
            await self._start_again()

    async def restart(self) -> None:
        """A clean stop, after a last tick; perhaps another configuration."""
        await self._together([lambda parts: parts.ticker.finish()])
        if self._random.random() < 0.6:
            self.world.settings = self._random.choice(VARIANTS)
        await self._start_again()

    def _has_to_undo(self) -> bool:
        """Tells whether an opening is to be undone, which is left to a batch: a tick does not end its session."""
        parts = self.world.parts
        return parts is not None and bool(parts.ticker._turnover._ending._undo)

    def _actions(self, many: int) -> list[Callable[[Parts], Coroutine[None, None, object]]]:
        choices = [
            self._client(self._open),
            self._client(self._replace),
            self._client(self._close),
            lambda parts: parts.ticker.tick(whole=True),
            lambda parts: parts.ticker.tick(whole=False),
            self._from_outside(self.add_device),
            self._from_outside(self.change_device),
            self._from_outside(self.admin),
            self._client(self._ask),
        ]
        return self._random.choices(choices, (4, 4, 2, 6, 4, 1, 2, 1, 3), k=many)

    async def _ask(self, parts: Parts) -> None:
        await device_steps.ask(self.world, parts, self._random)

    def _from_outside(self, command: Callable[[], Awaitable[None]]) -> Callable[[Parts], Coroutine[None, None, object]]:
        """A command of another process, at any time; it waits while the server writes."""
        turns = self._random.randrange(LATEST_TURN)

        async def run(_: Parts) -> None:
            running = self.world.running
            for turn in range(2 * LATEST_TURN):
                if running is None or running.process.dead:
                    return
                if turn >= turns and not running.connections[0]._inner.in_transaction:
                    await command()
                    return
                await asyncio.sleep(0)

        return run

    def _client(
        self, action: Callable[[Parts], Coroutine[None, None, object]]
    ) -> Callable[[Parts], Coroutine[None, None, object]]:
        """The same of a client that may leave."""

        async def run(parts: Parts) -> object:
            task = asyncio.current_task()
            assert task is not None
            self._clients.append(task)
            return await action(parts)

        return run

    async def _open(self, parts: Parts) -> None:
        account = await self.world.account(self._random.choice(NAMES))
        # Few keys, so that clients come back with them, and now and then with another account's.
        key = bytes([200 + self._random.randrange(9)]) * 32
        await parts.services.sessions.open(account, SessionRequest("fsn", key, ipv6=self._random.random() < 0.5))

    async def _replace(self, parts: Parts) -> None:
        live = [session for session in parts.live if not session.device_id]
        if live:
            session = self._random.choice(live)
            name = session.account
            await parts.services.sessions.open(
                await self.world.account(name), SessionRequest("fsn", session.public_key)
            )

    async def _close(self, parts: Parts) -> None:
        live = list(parts.live)
        if live:
            session = self._random.choice(live)
            await parts.services.sessions.close(await self.world.account(session.account), session.id)

    async def _together(
        self,
        actions: list[Callable[[Parts], Coroutine[None, None, object]]],
        *,
        busy: bool = False,
        die: bool = False,
    ) -> None:
        running = self.world.running
        if running is None or running.parts is None:
            await self._start_again()
            return
        at = self._random.randint(1, MOST_OPERATIONS) if die else None
        effective = self._random.random() < 0.5
        running.process.arm(at, effective=effective, meanwhile=self._meanwhile if busy else lambda: 0)
        queues = [running.parts.queue, running.parts.services.devices._queue]
        done = await _until_it_dies(running.process, queues, [action(running.parts) for action in actions])
        running.process.arm(None, effective=False, meanwhile=lambda: 0)
        _raise_unexpected(done)
        if running.process.dead:
            await self.world.bury()

    def _meanwhile(self) -> int:
        """While one operation runs: now and then time passes, and somebody sends."""
        luck = self._random.random()
        if self._leaving and self._clients and luck > 0.85:
            self._random.choice(self._clients).cancel()
        if luck < 0.06:
            self.world.host.run(self._random.choice((1, 3, 20)))
        elif luck < 0.14:
            self._send(handshakes=False)
        return self._random.choice((0, 0, 0, 1, 2, 5))

    async def _start_again(self) -> None:
        for attempt in range(REBUILDS):
            await self.world.bury()
            await self._look()
            await self._away()
            process = await self.world.open_store()
            may_die = attempt + 1 < REBUILDS and self._random.random() < 0.3
            at = self._random.randint(1, MOST_OPERATIONS) if may_die else None
            process.arm(at, effective=self._random.random() < 0.5, meanwhile=lambda: 0)
            done = await asyncio.gather(self.world.build(), return_exceptions=True)
            process.arm(None, effective=False, meanwhile=lambda: 0)
            _raise_unexpected(done)
            if not process.dead:
                return

    async def _away(self) -> None:
        """What happens while there is no process."""
        for _ in range(self._random.choice((0, 1, 1, 2, 3))):
            kinds = (self.traffic, self.advance, self.vanish, self.reboot, self.stranger, self.step_clock, self.admin)
            devices = (self.add_device, self.change_device)
            (happening,) = self._random.choices((*kinds, *devices), (6, 6, 1, 2, 2, 1, 2, 1, 2))
            await happening()
            await self._look()

    # What happens to the host --------------------------------------------------------------------------

    async def traffic(self) -> None:
        for _ in range(self._random.randint(1, 6)):
            self._send(handshakes=True)

    async def connect(self) -> None:
        """Clients of devices shake hands and send, and the exit may look."""
        world = self.world
        keys = [key for key in sorted(world.kernel.peers) if key in device_steps.DEVICE_KEYS]
        for _ in range(self._random.randint(1, 3) if keys else 0):
            key = self._random.choice(keys)
            device_steps.send(world, key, self._random, device_steps.SMALL, handshake=self._random.random() < 0.8)
        if self._random.random() < 0.7:
            whole = self._random.random() < 0.3
            await self._together([lambda parts: parts.ticker.tick(whole=whole)])

    async def advance(self) -> None:
        self.world.host.run(self._random.choice(PAUSES))

    async def step_clock(self) -> None:
        self.world.host.step(self._random.choice(STEPS) + self._random.choice((0, 0, 1, 999)))

    async def time_service(self) -> None:
        """One begins to keep the clock, or stops: what it does not keep, the kernel knows as unsynchronised."""
        self.world.host.kept = not self.world.host.kept

    async def vanish(self) -> None:
        """Somebody deletes the interface."""
        self.world.kernel.vanish()

    async def reboot(self) -> None:
        await self.world.bury()
        self.world.kernel.reboot(self._random.choice((20_000, 90_000, 2 * HOUR, 30 * HOUR)))

    async def stranger(self) -> None:
        """Somebody removes a peer, or removes it and adds it again, and it may go on at once."""
        peers = sorted(self.world.kernel.peers)
        if not peers:
            return
        key = self._random.choice(peers)
        if self._random.random() < 0.4:
            self.world.kernel.lose(key)
            return
        self.world.kernel.add_again(key)
        for _ in range(self._random.randint(0, 3)):
            self.world.kernel.traffic(key, self._random.choice(SIZES), self._random.choice(SIZES))

    async def tunnel_fault(self) -> None:
        """Dumps are interrupted or end early; a change fails, or only its answer does."""
        kernel, luck = self.world.kernel, self._random.random()
        if luck < 0.35:
            kernel.failing_dumps = self._random.randint(1, 3)
        elif luck < 0.6:
            shown = self._random.random()
            kernel.short_dump = lambda _: self._random.random() < shown
        else:
            kernel.failing_changes.append(self._random.random() < 0.5)

    async def store_fault(self) -> None:
        """Of the statements to come some fail: the disk is full, or the file system says that it did not write."""
        works = [Failing.NOT] * self._random.randint(0, 30)
        many = self._random.choice((1, 1, 2, 5, 40))
        self.world.disk.failing.extend((*works, *self._random.choices((Failing.BEFORE, Failing.AFTER), (3, 1), k=many)))

    def _send(self, *, handshakes: bool) -> None:
        kernel = self.world.kernel
        peers = sorted(kernel.peers)
        if peers:
            key = self._random.choice(peers)
            handshake = handshakes and self._random.random() < 0.6
            if key in device_steps.DEVICE_KEYS:
                device_steps.send(self.world, key, self._random, SIZES, handshake=handshake)
                return
            kernel.traffic(key, self._random.choice(SIZES), self._random.choice(SIZES), handshake=handshake)

    # What an admin does, from another process -----------------------------------------------------------

    async def add_device(self) -> None:
        with suppress(ApplianceError):
            await device_steps.add(self.world, self._random)

    async def ask(self) -> None:
        await self._together([self._ask])

    async def change_device(self) -> None:
        with suppress(ApplianceError):
            await device_steps.change(self.world, self._random)

    async def admin(self) -> None:
        world, random = self.world, self._random
        name = random.choice(NAMES)
        async with world.admin.write() as db:
            account = await account_rows.by_id(db, world.account_ids[name])
            assert account is not None
            own = await rows.unfinished_of(db, account.id)
            luck = random.random()
            if luck < 0.5:
                await account_rows.update(db, account.id, tier=random.choice(list(Tier)), disabled=account.disabled)
            elif luck < 0.75:
                disabled = not account.disabled
                await account_rows.update(db, account.id, tier=account.tier, disabled=disabled)
                if disabled:
                    await rows.mark_closing(db, [s.id for s in own], Reason.ADMIN)
            elif luck < 0.9:
                await rows.mark_closing(db, [s.id for s in own if s.state is State.LIVE][:1], Reason.ADMIN, "note")
            elif luck < 0.98:
                node = await node_row.read(db)
                drained = not node.drained and random.random() < 0.5
                await node_row.set_drained(db, drained=drained)
                if drained and random.random() < 0.5:
                    await rows.mark_closing(db, [s.id for s in await rows.unfinished(db)], Reason.DRAINED)
            else:
                await device_steps.delete_account(db, account, world)
            await node_row.request(db)


async def _until_it_dies(
    process: Process, queues: list[Queue], actions: list[Coroutine[None, None, object]]
) -> list[object]:
    """What the actions came to, and then what batches have left; or what they came to until the process died."""
    tasks = [asyncio.ensure_future(action) for action in actions]
    pending: set[asyncio.Future[object]] = set(tasks)
    while pending and not process.dead:
        batches = {queue._serving for queue in queues if queue._serving is not None and not queue._serving.done()}
        # A batch may begin meanwhile, and die: nothing else would tell.
        await asyncio.wait(pending | batches, timeout=0.01, return_when=asyncio.FIRST_COMPLETED)
        pending = {task for task in pending if not task.done()}
    for queue in () if process.dead else (*queues[1:], queues[0]):  # devices wait for sessions
        await queue.settled()
    for task in pending:
        task.cancel()
    tasks += [queue._serving for queue in queues if queue._serving is not None]
    return await asyncio.gather(*tasks, return_exceptions=True)


EXPECTED = (ApplianceError, Killed, asyncio.CancelledError)


def _raise_unexpected(done: list[object]) -> None:
    """An answer that the contract knows is no fault, and neither is the death that the schedule asked for."""
    for outcome in done:
        if isinstance(outcome, BaseException) and not isinstance(outcome, EXPECTED):
            raise outcome


WEIGHTS = {
    "open": 12,
    "replace": 4,
    "close": 3,
    "tick": 22,
    "busy": 8,
    "leave": 12,
    "crash": 14,
    "restart": 3,
    "traffic": 18,
    "advance": 16,
    "step_clock": 3,
    "time_service": 2,
    "vanish": 2,
    "reboot": 2,
    "stranger": 5,
    "tunnel_fault": 4,
    "store_fault": 4,
    "admin": 5,
    "reload": 2,
    "settle": 4,
    "lapse": 3,
    "connect": 12,
    "add_device": 8,
    "change_device": 3,
    "ask": 4,
}
