"""Starts requests in small batches, so that a flood of them starves neither ticks nor running requests."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send

BATCH_SIZE = 32


class RequestQueue:
    """Wraps an ASGI application: starts BATCH_SIZE requests per event loop iteration, in order of arrival.

    A request that has started is not delayed any further, and delays no other.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._left = BATCH_SIZE
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._scheduled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._start_batch, loop)
        if self._left:
            self._left -= 1
        else:
            start = loop.create_future()
            self._waiting.append(start)
            await start
        await self._app(scope, receive, send)

    def _start_batch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._left = BATCH_SIZE
        while self._left and self._waiting:
            start = self._waiting.popleft()
            if not start.done():  # cancelled by the stop
                start.set_result(None)
                self._left -= 1
        # Requests that arrive before the next batch wait behind these.
        self._scheduled = self._left < BATCH_SIZE
        if self._scheduled:
            loop.call_soon(self._start_batch, loop)
