"""The ticker is woken before its time."""

from __future__ import annotations

import asyncio

from appliance.sessions.wakeup import Wakeup

LONG = 3600.0


def test_a_request_before_and_during_a_wait() -> None:
    """A request ends the wait at once, and is returned once."""

    async def waits() -> None:
        wakeup = Wakeup()
        wakeup.request_tick()
        assert await wakeup.wait(lambda: LONG)
        assert not await wakeup.wait(lambda: 0.001)
        waiting = asyncio.create_task(wakeup.wait(lambda: LONG))
        await asyncio.sleep(0)
        wakeup.request_tick()
        async with asyncio.timeout(60):
            assert await waiting

    asyncio.run(waits())


def test_a_wait_ends_early_when_its_time_is_set_again() -> None:
    """The waiting time is computed anew, and a wait whose time is now over ends."""

    async def waits() -> None:
        wakeup, left = Wakeup(), [0.001, LONG]
        waiting = asyncio.create_task(wakeup.wait(left.pop))
        await asyncio.sleep(0)
        wakeup.reschedule()
        async with asyncio.timeout(60):
            assert not await waiting
        assert not left

    asyncio.run(waits())
