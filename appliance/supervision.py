"""Background tasks that do not stop silently."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0


async def supervise(name: str, run: Callable[[], Awaitable[None]], stopping: asyncio.Event) -> None:
    """Run until it returns; a crash is logged with its cause and run again, later each time."""
    delay = FIRST_DELAY_S
    while not stopping.is_set():
        try:
            await run()
        except Exception:
            log.exception("%s crashed; starting it again in %g s", name, delay)
            await wait(stopping, delay)
            delay = min(delay * 2, LONGEST_DELAY_S)
        else:
            return


async def wait(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event, `seconds` at most; whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
