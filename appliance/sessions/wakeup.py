"""Wakes the one who ticks before its time has come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Alarm:
    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.rung = False

    def ring(self) -> None:
        """Something may differ from the store, or was asked for: a whole tick at once."""
        self.rung = True
        self._event.set()

    def set_again(self) -> None:
        """The next tick may be due earlier than it was."""
        self._event.set()

    async def wait(self, seconds: Callable[[], float]) -> bool:
        """Until it rings, or until the time that is left has passed; whether it rang."""
        while not self.rung:
            self._event.clear()
            try:
                async with asyncio.timeout(seconds()):
                    await self._event.wait()
            except TimeoutError:
                break
        rung, self.rung = self.rung, False
        return rung
