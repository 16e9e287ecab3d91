"""Waits, on one of several hubs, until a second one has what this one has changed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from appliance.domain.errors import NotAnswered
from appliance.store.queries import fleet_state

if TYPE_CHECKING:
    from appliance.store.database import Store
    from appliance.store.queries.fleet_changes import Head

WITHIN_S, POLL_S = 5.0, 0.1


async def await_kept(store: Store, wanted: tuple[int, Head] | None) -> None:
    """Returns when a second hub has what was changed; at once where this host was the only hub.

    `wanted`: see fleet_state.to_be_kept, in the transaction of the change. Raises NotAnswered: none has in time; it has
    it later, or another hub leads that has not. Raises StoreUnavailable.
    """
    if wanted is None:
        return
    try:
        async with asyncio.timeout(WITHIN_S):
            while not await _is_kept(store, *wanted):  # noqa: ASYNC110 (the store changes by what another task hears)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise NotAnswered("no second hub has heard of it yet") from None


async def _is_kept(store: Store, gen: int, change: Head) -> bool:
    async with store.read() as db:
        return await fleet_state.is_kept(db, gen, change)
