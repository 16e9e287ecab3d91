"""Lets requests wait for the batch that answers them: what arrives while one is at work is in the next."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_IN_BATCH = 256  # bounds how long the exit is locked; a message to the device holds as many peers


class Waiting(Generic[T]):
    """Holds a request about the peer of a key until it is answered.

    `abandoned`: its client has been told that it failed, so that a success has to be undone.
    """

    def __init__(self, public_key: bytes) -> None:
        self.public_key = public_key
        self.abandoned = False
        self.answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def succeed(self, result: T) -> None:
        """Answers the request. The answer to an abandoned one goes nowhere."""
        if not self.answer.done():
            self.answer.set_result(result)

    def fail(self, error: Exception) -> None:
        """Answers the request with an error."""
        if not self.answer.done() and not self.abandoned:
            self.answer.set_exception(error)


class Queue:
    """Gives requests to `serve` in batches, one batch at a time, in the order of their arrival.

    `serve` gets a function that cuts its batch: all that waits then, but one request of a key, as those of one key are
    served one after another. It answers each request, and returns whether it has left work that is to be done at once,
    by the next batch if there is one. `undo` is called with a request that was abandoned after it had been answered.
    `gap_s`, `gathered_s`: bound what a request may lose by waiting for others: between two of them, and in all.
    """

    def __init__(
        self,
        serve: Callable[[Callable[[], Sequence[Waiting[Any]]]], Awaitable[bool]],
        undo: Callable[[Waiting[Any]], None],
        *,
        gap_s: float = 0.002,
        gathered_s: float = 0.010,
    ) -> None:
        self._serve = serve
        self._undo = undo
        self._gap_s = gap_s
        self._gathered_s = gathered_s
        self._waiting: dict[Waiting[Any], None] = {}
        self._batch: list[Waiting[Any]] = []  # the last one that was cut
        self._due = False  # a batch is due, even without a request
        self._arrived = asyncio.Event()  # a request has come
        self._serving: asyncio.Task[None] | None = None

    async def ask(self, request: Waiting[T], deadline: float) -> T:
        """Returns the answer to a request. Raises TimeoutError if there is none by `deadline` (the loop's time).

        A request whose caller leaves before its batch is cut is not served; one that is being served is abandoned.
        """
        self.put(request)
        try:
            await asyncio.wait((request.answer,), timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        except asyncio.CancelledError:
            self._leave(request)
            raise
        if not request.answer.done():
            self._leave(request)
            raise TimeoutError
        return request.answer.result()

    def put(self, request: Waiting[T]) -> None:
        """Adds a request for which nobody waits here: its answer is set."""
        self._waiting[request] = None
        self._arrived.set()
        self._begin()

    def take_back(self, request: Waiting[Any]) -> None:
        """Has a request undone that was answered with success, as one that was abandoned."""
        self._undo(request)
        self.settle()

    def settle(self) -> None:
        """Asks for a batch that does what earlier ones have left, whether or not a request comes."""
        self._due = True
        self._begin()

    async def settled(self) -> None:
        """Waits until no request waits and no batch is due."""
        while self._serving is not None and not self._serving.done():
            await asyncio.wait((self._serving,))

    def _begin(self) -> None:
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve_all())

    async def _serve_all(self) -> None:
        while self._waiting or self._due:
            await self._gather()
            self._due, self._batch = False, []
            try:
                left = await self._serve(self._cut)
                self._due = self._due or left
            except Exception as error:
                # Whatever happens, each is answered.
                log.exception("a batch of %d requests failed", len(self._batch))
                for request in self._batch:
                    request.fail(error)

    async def _gather(self) -> None:
        """Waits a moment for as many requests as the last batch had: clients that were answered together ask again
        together, and each that comes just after a batch has begun would wait for two of them."""
        clock = asyncio.get_running_loop().time
        latest = clock() + self._gathered_s
        with suppress(TimeoutError):
            while len(self._waiting) < len(self._batch):
                self._arrived.clear()
                async with asyncio.timeout_at(min(clock() + self._gap_s, latest)):
                    await self._arrived.wait()

    def _cut(self) -> list[Waiting[Any]]:
        batch: dict[bytes, Waiting[Any]] = {}
        for request in self._waiting:
            batch.setdefault(request.public_key, request)
            if len(batch) == MOST_IN_BATCH:
                break
        for request in batch.values():
            del self._waiting[request]
        self._batch = list(batch.values())
        return self._batch

    def _leave(self, request: Waiting[Any]) -> None:
        if request in self._waiting:
            del self._waiting[request]
            return
        request.abandoned = True
        if request.answer.done() and request.answer.exception() is None:
            self.take_back(request)
