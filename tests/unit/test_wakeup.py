"""What wakes the one who ticks."""

from __future__ import annotations

import asyncio

from appliance.sessions.wakeup import Alarm

LONG = 3600.0


def test_rung_before_and_under_a_wait() -> None:
    """Ringing is told at once, and told once."""

    async def waits() -> None:
        alarm = Alarm()
        alarm.ring()
        assert await alarm.wait(lambda: LONG)
        assert not await alarm.wait(lambda: 0.001)
        waiting = asyncio.create_task(alarm.wait(lambda: LONG))
        await asyncio.sleep(0)
        alarm.ring()
        async with asyncio.timeout(10):
            assert await waiting

    asyncio.run(waits())


def test_a_wait_ends_early_when_its_time_is_set_again() -> None:
    """What is due is asked for again, and a wait that was long is over when its time is now."""

    async def waits() -> None:
        alarm, left = Alarm(), [0.001, LONG]
        waiting = asyncio.create_task(alarm.wait(left.pop))
        await asyncio.sleep(0)
        alarm.set_again()
        async with asyncio.timeout(10):
            assert not await waiting
        assert not left

    asyncio.run(waits())
