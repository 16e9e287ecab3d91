"""Requests that arrive at about the same time are one batch."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from appliance.sessions.waiting import Queue, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CLIENTS, TURNS = 16, 5
GAP_S = 0.01


class Served:
    """Answers all, after the event loop has been through some times; notes how many were in each batch."""

    def __init__(self, gap_s: float) -> None:
        self.sizes: list[int] = []
        self.queue = Queue(self._serve, lambda _: None, gap_s=gap_s, gathered_s=gap_s)

    async def _serve(self, cut: Callable[[], Sequence[Waiting[Any]]]) -> bool:
        batch = cut()
        self.sizes.append(len(batch))
        await _passes(3)
        for request in batch:
            request.succeed(None)
        return False

    async def ask(self, key: int) -> None:
        await self.queue.ask(Waiting(bytes([key])), asyncio.get_running_loop().time() + 60)


async def _passes(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def test_clients_that_were_answered_together_are_served_together() -> None:
    """However much one's next request is behind another's in the event loop: once all were in a batch they stay so."""

    async def client(served: Served, number: int) -> None:
        for _ in range(TURNS):
            await served.ask(number)
            await _passes(number)

    async def run() -> list[int]:
        served = Served(gap_s=60)
        await asyncio.gather(*(client(served, number) for number in range(CLIENTS)))
        return served.sizes

    assert asyncio.run(run()) == [CLIENTS] * TURNS


def test_nobody_is_waited_for_long() -> None:
    """A request whose companions do not come back is served without them, and the next one waits for nobody."""

    async def run() -> tuple[list[int], float]:
        served = Served(GAP_S)
        await asyncio.gather(*(served.ask(number) for number in range(CLIENTS)))
        began = time.perf_counter()
        await served.ask(1)
        await served.ask(1)
        return served.sizes, time.perf_counter() - began

    sizes, seconds = asyncio.run(run())
    assert sizes == [CLIENTS, 1, 1]
    assert seconds >= GAP_S
