"""Notes, for the status, what this exit has not reported yet and, on a hub, up to when each exit has."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.domain.errors import StoreUnavailable
from appliance.fleet.status.status import ReportState
from appliance.sessions.stopping import pause
from appliance.store.commits import StoreNews

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from appliance.domain.clock import Clock
    from appliance.store.database import Store

LOOK_S = 1.0


async def _no_hub() -> None:
    return None


class ReportWatch:
    """Reads from the store: `unsent` sessions and, on a hub, up to when each exit `told` all. Both as Reporting and
    HubPart have them. `state`: as last read."""

    def __init__(self, store: Store, clock: Clock, unsent: Callable[[], Awaitable[int]]) -> None:
        self._news = StoreNews(store.commits)
        self._clock = clock
        self._unsent = unsent
        self.told: Callable[[], Awaitable[Mapping[str, int] | None]] = _no_hub
        self.state = ReportState()

    async def run(self) -> None:
        """Looks each second, until it is cancelled."""
        while True:
            with suppress(StoreUnavailable):  # the tick says so
                if self._news.is_any():
                    await self._read()
                    self._news.taken()
            await pause(LOOK_S)

    async def _read(self) -> None:
        unsent, told_until = await self._unsent(), await self.told()
        since = (self.state.waiting_since or self._clock.now().wall_ms) if unsent else None
        self.state = ReportState(unsent, since, told_until)
