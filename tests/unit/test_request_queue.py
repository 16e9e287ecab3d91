"""Many requests at once are begun a few each time round the event loop, the first that came first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from appliance.server.http.request_queue import BATCH_SIZE, RequestQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable

MANY = 10 * BATCH_SIZE


class Begun:
    """An application that notes which request began in which round, and waits where it is told to."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self.by_round: dict[int, int] = {}
        self.round = 0
        self.gate = asyncio.Event()

    async def __call__(self, scope: Any, *_: object) -> None:
        self.order.append(scope["number"])
        self.by_round[self.round] = self.by_round.get(self.round, 0) + 1
        await self.gate.wait()

    async def count_rounds(self) -> None:
        """What else the process does, a step each time round."""
        while True:
            self.round += 1
            await asyncio.sleep(0)


def ask(queue: RequestQueue, number: int) -> Awaitable[None]:
    return asyncio.create_task(queue(cast("Any", {"number": number}), cast("Any", None), cast("Any", None)))


async def rounds(many: int) -> None:
    for _ in range(many):
        await asyncio.sleep(0)


def test_a_few_each_round() -> None:
    """Never more than BATCH_SIZE in a round, in the order in which they came, whether those before have ended or
    not; newcomers do not pass those who wait."""

    async def story() -> None:
        begun = Begun()
        queue = RequestQueue(begun)
        counting = asyncio.create_task(begun.count_rounds())
        asking = [ask(queue, n) for n in range(MANY)]
        await rounds(5)
        asking += [ask(queue, n) for n in range(MANY, MANY + BATCH_SIZE)]
        await rounds(30)
        assert begun.order == list(range(MANY + BATCH_SIZE))
        assert max(begun.by_round.values()) <= BATCH_SIZE
        assert len(begun.by_round) >= MANY // BATCH_SIZE
        begun.gate.set()
        await asyncio.gather(*asking)
        counting.cancel()

    asyncio.run(story())


def test_a_lone_request_begins_at_once() -> None:
    """A request that comes alone is begun at once, each time, and nothing goes on running behind it."""

    async def story() -> None:
        begun = Begun()
        begun.gate.set()
        queue = RequestQueue(begun)
        for number in range(3 * BATCH_SIZE):
            await queue(cast("Any", {"number": number}), cast("Any", None), cast("Any", None))
            await rounds(3)
        assert len(begun.order) == 3 * BATCH_SIZE

    asyncio.run(story())


def test_one_that_gives_up() -> None:
    """A request that is cancelled while it waits does not count towards a batch."""

    async def story() -> None:
        begun = Begun()
        begun.gate.set()
        queue = RequestQueue(begun)
        asking = [cast("asyncio.Task[None]", ask(queue, n)) for n in range(3 * BATCH_SIZE)]
        await rounds(1)
        for task in asking[BATCH_SIZE : 2 * BATCH_SIZE]:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        assert begun.order == [*range(BATCH_SIZE), *range(2 * BATCH_SIZE, 3 * BATCH_SIZE)]

    asyncio.run(story())
