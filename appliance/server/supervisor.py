"""Restarts background tasks that crash."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from appliance.sessions.stopping import wait

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0


class Supervisor:
    """Keeps tasks running until `stopping`. `report`: called with a task's name and why it does not run, or None."""

    def __init__(self, stopping: asyncio.Event, report: Callable[[str, str | None], None]) -> None:
        self._stopping = stopping
        self._report = report
        self.crashes: dict[str, int] = {}  # by task

    async def keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Runs a task until it returns. A crash is logged with its cause; the restart is delayed longer each time."""
        delay = FIRST_DELAY_S
        self.crashes[name] = 0
        while not self._stopping.is_set():
            self._report(name, None)
            try:
                await run()
            except Exception as error:
                log.exception("%s crashed; starting it again in %g s", name, delay)
                self.crashes[name] += 1
                self._report(name, f"{name} crashed: {type(error).__name__}: {error}")
                await wait(self._stopping, delay)
                delay = min(delay * 2, LONGEST_DELAY_S)
            else:
                return


async def wait_either(*events: asyncio.Event) -> None:
    """Waits until one of the events is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait_for_one in waiting:
            wait_for_one.cancel()
