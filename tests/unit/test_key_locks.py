"""Requests about one key take turns."""

from __future__ import annotations

import asyncio

import pytest

from appliance.server.api.key_locks import KeyLocks

A, B = b"a" * 32, b"b" * 32


def test_one_at_a_time() -> None:
    """Of many holders of a key one is inside at a time, in the order in which they came."""

    async def story() -> None:
        locks, inside, order = KeyLocks(), [0], list[int]()

        async def hold(number: int) -> None:
            async with locks.hold(A):
                inside[0] += 1
                assert inside == [1]
                await asyncio.sleep(0)
                order.append(number)
                inside[0] -= 1

        await asyncio.gather(*(hold(n) for n in range(20)))
        assert order == list(range(20))

    asyncio.run(story())


def test_others_do_not_wait() -> None:
    """Two keys are held at the same time."""

    async def story() -> None:
        locks = KeyLocks()
        async with asyncio.timeout(60), locks.hold(A), locks.hold(B):
            assert locks.held(A)
            assert locks.held(B)

    asyncio.run(story())


def test_held_while_anybody_waits() -> None:
    """A key counts as held while somebody has it or waits for it, and is forgotten afterwards."""

    async def story() -> None:
        locks = KeyLocks()
        async with locks.hold(A):
            waiting = asyncio.create_task(enter(locks))
            await asyncio.sleep(0)
        assert locks.held(A)
        await waiting
        assert not locks.held(A)

    async def enter(locks: KeyLocks) -> None:
        async with locks.hold(A):
            await asyncio.sleep(0)

    asyncio.run(story())


def test_failure_and_cancellation() -> None:
    """A holder that fails and a waiter that is cancelled leave the key free."""

    async def story() -> None:
        locks = KeyLocks()

        async def fail() -> None:
            async with locks.hold(A):
                raise ZeroDivisionError

        async def enter() -> None:
            async with locks.hold(A):
                return

        with pytest.raises(ZeroDivisionError):
            await fail()
        async with locks.hold(A):
            waiting = asyncio.create_task(enter())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
            assert locks.held(A)
        assert not locks.held(A)

    asyncio.run(story())
