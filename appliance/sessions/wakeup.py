"""Wakes the ticker early."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Wakeup:
    """Ends the wait for the next tick before its time. `pending`: a whole tick was asked for and has not begun."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.pending = False
        self.calm_s: Callable[[Iterable[str]], float] = lambda _: 0.0  # see Contentions.wait_s

    def request_tick(self) -> None:
        """Asks for a whole tick at once: the exit may differ from the store, or a command has asked for a change."""
        self.pending = True
        self._event.set()

    def reschedule(self) -> None:
        """Asks for the waiting time to be computed anew: the next tick may be due earlier than it was."""
        self._event.set()

    async def wait(self, seconds: Callable[[], float]) -> bool:
        """Waits until a whole tick is asked for, or for `seconds()`. Returns whether one was asked for."""
        while not self.pending:
            self._event.clear()
            try:
                async with asyncio.timeout(seconds()):
                    await self._event.wait()
            except TimeoutError:
                break
        pending, self.pending = self.pending, False
        return pending
