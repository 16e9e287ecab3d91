"""Waits, on one of several hubs, until a second one has what this one has changed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from appliance.store.queries import fleet_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.store.database import Store
    from appliance.store.queries.fleet_changes import Head

POLL_S = 0.05


async def await_kept(
    store: Store, wanted: tuple[int, Head], within_s: float, goes_on: Callable[[], bool] = lambda: True
) -> bool:
    """Tells whether a second hub has it, once one has, or after that time; at once where it does not go on.

    `wanted`: see fleet_state.to_be_kept, in the transaction of the change. `goes_on`: whether a server runs that would
    hear of it. False: one has it later, or another hub leads that has not. Raises StoreUnavailable.
    """
    end = asyncio.get_running_loop().time() + within_s
    while True:
        async with store.read() as db:
            if await fleet_state.is_kept(db, *wanted):
                return True
        if not goes_on() or asyncio.get_running_loop().time() >= end:
            return False
        await asyncio.sleep(POLL_S)
