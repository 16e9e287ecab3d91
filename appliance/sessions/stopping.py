"""Waits between two looks of what looks again and again.

A process that is woken costs more than what most looks do. So longer waits end at times that are multiples of a part of
a second: looks that are made as often as each other are made together, which wakes the process once.
"""

from __future__ import annotations

import asyncio

# How long a wait is at least, and what the time at its end is a multiple of: it is at least half as long as was asked.
TOGETHER_S = ((0.5, 0.25), (0.25, 0.125))


def end_of(seconds: float, now_s: float) -> float:
    """Returns when a wait ends that begins now: after `seconds`, or somewhat earlier."""
    for least_s, apart_s in TOGETHER_S:
        if seconds >= least_s:
            return (now_s + seconds) // apart_s * apart_s
    return now_s + seconds


async def wait(event: asyncio.Event, seconds: float) -> bool:
    """Waits for the event, at most `seconds`. Returns whether it was set."""
    try:
        async with asyncio.timeout_at(end_of(seconds, asyncio.get_running_loop().time())):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def pause(seconds: float) -> None:
    """Waits for at most `seconds`."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(end_of(seconds, loop.time()) - loop.time())
