"""Runs a tunnel's blocking calls in one thread: the event loop never blocks, and calls never interleave."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from appliance.domain.errors import TunnelError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Worker:
    """Runs calls one after another, each to its end: a cancelled caller stops waiting, its call does not stop.

    A cancelled call that had not begun never begins.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._closed = False

    async def run(self, call: Callable[[], T]) -> T:
        if self._closed:
            raise TunnelError(f"{self._name}: used after close()")
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    async def close(self, last: Callable[[], None]) -> None:
        """Runs `last` after all calls already begun, then ends the thread. Closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, last)
        finally:
            # Nothing is queued any more, so this waits for one thread to return and no longer.
            self._executor.shutdown(wait=True, cancel_futures=True)
