"""Starts requests in small batches, so that ticks and running requests are not starved, however many there are."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send

BEGUN_AT_ONCE = 32


class Turns:
    """Wraps an ASGI application: starts BEGUN_AT_ONCE requests per event loop iteration, in order of arrival.

    A request that has started is not delayed here any more, and delays no other.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._left = BEGUN_AT_ONCE
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._comes_round = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        if not self._comes_round:
            self._comes_round = True
            loop.call_soon(self._next_round, loop)
        if self._left:
            self._left -= 1
        else:
            turn = loop.create_future()
            self._waiting.append(turn)
            await turn
        await self._app(scope, receive, send)

    def _next_round(self, loop: asyncio.AbstractEventLoop) -> None:
        self._left = BEGUN_AT_ONCE
        while self._left and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # cancelled by the stop
                turn.set_result(None)
                self._left -= 1
        # Requests that arrive before the next round wait behind these.
        self._comes_round = self._left < BEGUN_AT_ONCE
        if self._comes_round:
            loop.call_soon(self._next_round, loop)
