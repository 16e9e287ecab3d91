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
    from appliance.fleet.hub_connection import HubConnection
    from appliance.fleet.wire import Message

log = logging.getLogger(__name__)

MOST_AT_WORK = 256  # handlers of one subscription
MOST_WAITING = 8192  # messages beside them; more are dropped


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


class Subscription:
    """Is one subscription, which lasts over connections."""

    def __init__(self, subject: str, queue: str, handle: Callable[[Message], Awaitable[None]], clock: Clock) -> None:
        self.subject = subject
        self.queue = queue
        self._handle = handle
        self._clock = clock
        self._turns = asyncio.Semaphore(MOST_AT_WORK)
        self._tasks: set[asyncio.Task[None]] = set()
        self._dropped = 0

    def taking(self, connection: HubConnection) -> Callable[[Msg], Awaitable[None]]:
        """Returns what takes the messages that come by the connection. It does not wait, so `arrived_ms` is right."""

        async def take(message: Msg) -> None:
            if connection.lost.is_set():
                return  # what is left in memory of a lost connection is of before the loss
            if len(self._tasks) >= MOST_AT_WORK + MOST_WAITING:
                self._drop()
                return
            received = ReceivedMessage(message, connection, self._clock.now().boot_ms)
            task = asyncio.create_task(self._run(received))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return take

    async def _run(self, message: ReceivedMessage) -> None:
        async with self._turns:
            try:
                await self._handle(message)
            except Exception:
                log.exception("a message on %r could not be handled", message.subject)

    def _drop(self) -> None:
        self._dropped += 1
        if self._dropped.bit_count() == 1:  # the 1st, 2nd, 4th, 8th…
            log.warning("%d messages on %s were dropped: too many at once", self._dropped, self.subject)

    async def close(self) -> None:
        """Cancels the handlers that are at work, and waits for them."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
