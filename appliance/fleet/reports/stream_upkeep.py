"""Keeps the hub's streams bounded: removes those of hosts that are gone, and what was folded long ago.

Exits have what they reported in their own stores, and the fold has it: digests find what it then lacks.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from appliance.fleet.link.looking import look_until

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from appliance.domain.clock import Clock
    from appliance.fleet.reports.fold import Fold
    from appliance.fleet.reports.stream_room import Streams

log = logging.getLogger(__name__)

LOOK_S = 30.0
PURGE_MS = 3_600_000  # how often old messages are looked for
PAGES = 200  # that are dropped at once of one stream
KEPT_MS = 7 * 86_400_000  # a message of an ended session, also after it was folded: a hub that is made anew reads it


class Bucket(Protocol):
    """Is another of the hub's streams."""

    async def bound(self) -> None:
        """Gives it its bound, where an earlier version has made it without one. Raises FleetError."""
        ...


async def _nobody_copies(_node: str) -> bool:
    return True


class StreamUpkeep:
    """Keeps the streams of the members: `members` returns the ids of the hosts that are in the fleet.

    `is_copied`: whether all hubs, also those that stand by, have all that a host has told.
    """

    def __init__(
        self,
        fold: Fold,
        streams: Streams,
        members: Callable[[], Collection[str]],
        clock: Clock,
        buckets: Sequence[Bucket] = (),
        is_copied: Callable[[str], Awaitable[bool]] = _nobody_copies,
    ) -> None:
        self._is_copied = is_copied
        self._unbounded = list(buckets)
        self._fold = fold
        self._streams = streams
        self._members = members
        self._clock = clock
        self._purged_ms: int | None = None  # CLOCK_BOOTTIME

    async def run(self, stopping: asyncio.Event) -> None:
        """Looks until `stopping`."""
        await look_until(stopping, self.look, LOOK_S, log, "the hub's streams are not kept small")

    async def look(self) -> None:
        """Removes what is no longer needed. Raises FleetError or StoreUnavailable."""
        for node in await self._streams.nodes():
            if node not in self._members():
                await self._remove(node)
        now = self._clock.now()
        if self._purged_ms is None or now.boot_ms - self._purged_ms >= PURGE_MS:
            for node in self._members():
                await self._purge(node, now.wall_ms - KEPT_MS)
            self._purged_ms = now.boot_ms
        while self._unbounded:
            await self._unbounded[-1].bound()
            self._unbounded.pop()

    async def _remove(self, node: str) -> None:
        """Its last reports are folded first, on each hub: it is let in no more, so that none follow."""
        await self._fold.catch_up(node)
        if not await self._is_copied(node):
            return
        await self._streams.remove(node)
        self._fold.forget(node)
        log.info("the stream of %s is removed, which has left the fleet: all that it reported is folded", node)

    async def _purge(self, node: str, before_ms: int) -> None:
        await self._fold.catch_up(node)
        for _ in range(PAGES):
            if not await self._fold.room.drop_ended(node, before_ms):
                return
