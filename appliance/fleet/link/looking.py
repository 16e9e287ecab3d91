"""Looks again and again at what a hub has to do, and says once that a look fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.errors import CutOff, FleetError, StoreUnavailable
from appliance.sessions.stopping import wait

if TYPE_CHECKING:
    import asyncio
    import logging
    from collections.abc import Awaitable, Callable


async def look_until(
    stopping: asyncio.Event, look: Callable[[], Awaitable[None]], every_s: float, log: logging.Logger, fails: str
) -> None:
    """Looks until `stopping`. `fails`: what is logged of a failure, until a look succeeds; the link says of a cut."""
    failing = False
    while not stopping.is_set():
        try:
            await look()
            failing = False
        except CutOff:
            pass  # the link says so
        except (FleetError, StoreUnavailable) as error:
            if not failing:
                log.warning("%s: %s", fails, error)
            failing = True
        await wait(stopping, every_s)
