"""Hands the messages of one subscription to its handler, several at a time."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from appliance.domain.errors import CutOff, NotPermitted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats.aio.msg import Msg

    from appliance.domain.clock import Clock
    from appliance.fleet.link.hub_connection import HubConnection
    from appliance.fleet.link.wire import Message

log = logging.getLogger(__name__)

MOST_AT_WORK = 256  # handlers of one subscription
MOST_WAITING = 8192  # messages beside them; more are dropped
MOST_BYTES = 64 * 1024 * 1024  # of all of these
# Of one member, so that one that sends all it can keeps no other waiting, nor fills this host's memory.
OF_ONE_AT_WORK, OF_ONE, OF_ONE_BYTES = 64, 2048, 8 * 1024 * 1024


class ReceivedMessage:
    """Is a `Message` of wire. It can be answered only by the connection it came by."""

    def __init__(self, message: Msg, connection: HubConnection, arrived_ms: int) -> None:
        self.subject = message.subject
        self.data = message.data
        self.reply = message.reply
        self.arrived_ms = arrived_ms
        self._connection = connection
        self._answered = False

    async def answer(self, data: bytes) -> None:
        if not self.reply or self._answered:
            raise NotPermitted(f"the message on {self.subject} awaits no answer")
        if self._connection.lost.is_set():
            raise CutOff("the connection by which the request came is lost")
        self._answered = True
        await self._connection.publish(self.reply, data)


def sender_of(subject: str) -> str:
    """Returns which member has sent a message, by the subjects that the hub lets it send on."""
    fields = subject.split(".")
    at = 3 if fields[1:2] == ["rpc"] else 2
    return fields[at] if len(fields) > at else ""


class _OfOne:
    """Holds what one member has under way."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(OF_ONE_AT_WORK)
        self.messages = 0
        self.bytes = 0


class Subscription:
    """Is one subscription, which lasts over connections."""

    def __init__(self, subject: str, queue: str, handle: Callable[[Message], Awaitable[None]], clock: Clock) -> None:
        self.subject = subject
        self.queue = queue
        self._handle = handle
        self._clock = clock
        self._turns = asyncio.Semaphore(MOST_AT_WORK)
        self._tasks: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._of_one: dict[str, _OfOne] = {}
        self._dropped = 0
        self._failed = 0

    def taking(self, connection: HubConnection) -> Callable[[Msg], Awaitable[None]]:
        """Returns what takes the messages that come by the connection. It does not wait, so `arrived_ms` is right."""

        async def take(message: Msg) -> None:
            if connection.lost.is_set():
                return  # what is left in memory of a lost connection is of before the loss
            sender, size = sender_of(message.subject), len(message.data)
            one = self._of_one.get(sender) or _OfOne()
            full = one.messages >= OF_ONE or (one.messages and one.bytes + size > OF_ONE_BYTES)
            if full or len(self._tasks) >= MOST_AT_WORK + MOST_WAITING or self._bytes + size > MOST_BYTES:
                self._drop()
                return
            self._of_one[sender] = one
            one.messages += 1
            one.bytes += size
            self._bytes += size
            received = ReceivedMessage(message, connection, self._clock.now().boot_ms)
            task = asyncio.create_task(self._run(received, one))
            self._tasks.add(task)
            task.add_done_callback(lambda _: self._done(task, sender, size))

        return take

    def _done(self, task: asyncio.Task[None], sender: str, size: int) -> None:
        self._tasks.discard(task)
        one = self._of_one[sender]
        one.messages -= 1
        one.bytes -= size
        self._bytes -= size
        if not one.messages:
            del self._of_one[sender]

    async def _run(self, message: ReceivedMessage, one: _OfOne) -> None:
        async with one.turns, self._turns:
            try:
                await self._handle(message)
            except Exception:
                self._failed += 1
                if self._failed.bit_count() == 1:  # the 1st, 2nd, 4th, 8th…: who sends one can send thousands
                    log.exception("a message on %r could not be handled", message.subject[:200])

    def _drop(self) -> None:
        self._dropped += 1
        if self._dropped.bit_count() == 1:
            log.warning("%d messages on %s were dropped: too many at once", self._dropped, self.subject)

    async def close(self) -> None:
        """Cancels the handlers that are at work, and waits for them."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
