"""Keeps clients from filling the host's connection tracking table with what does not count, in a background task."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from appliance.network.firewall.flow_excess import CROWDED
from appliance.sessions.stopping import wait

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from appliance.network.firewall.flow_capacity import TableSize

log = logging.getLogger(__name__)

LOOK_S = 5.0
FRUITLESS_S = 30.0  # after a look that found no client above its limit: others fill the table, and reading it costs


class FlowWatch:
    """Looks at the table's size. `read_size` returns None where nothing is tracked; `forget_excess` is asked for where
    the table is nearly full."""

    def __init__(
        self,
        read_size: Callable[[], TableSize | None],
        forget_excess: Callable[[], Awaitable[int]],
        stopping: asyncio.Event,
        interval_s: float = LOOK_S,
        fruitless_s: float = FRUITLESS_S,
    ) -> None:
        self._read_size = read_size
        self._forget_excess = forget_excess
        self._stopping = stopping
        self._interval_s = interval_s
        self._fruitless_s = fruitless_s

    async def run(self) -> None:
        """Watches until `stopping`."""
        interval_s = self._interval_s
        while not await wait(self._stopping, interval_s):
            interval_s = self._interval_s
            size = self._read_size()
            if size is None or size.share < CROWDED:
                continue
            if many := await self._forget_excess():
                log.warning(
                    "%d of %d connections were in use: %d forgotten of clients that had more than max_flows",
                    size.count,
                    size.limit,
                    many,
                )
            else:
                interval_s = self._fruitless_s
