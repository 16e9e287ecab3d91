"""Checks and opens the store at the start."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from appliance.store import free_pages, integrity
from appliance.store.database import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AsyncExitStack
    from pathlib import Path

    from appliance.sessions.metrics import Metrics
    from appliance.store.state_dir import StateDir


@asynccontextmanager
async def checked_beside(path: Path) -> AsyncIterator[None]:
    """Checks the store's file beside what the block does, which does not use it.

    Raises what the block raises; after it, StoreError as `integrity.check` does.
    """
    checking = asyncio.create_task(asyncio.to_thread(integrity.check, path))
    try:
        yield
    except BaseException:
        await asyncio.gather(checking, return_exceptions=True)
        raise
    await checking


async def open_store(state: StateDir, metrics: Metrics, stack: AsyncExitStack) -> Store:
    """Opens the store, which was checked, or creates it; it is closed with `stack`."""
    state.create_store()
    store = await Store.open(state.store, observer=metrics.store_used)
    stack.push_async_callback(store.close)
    await asyncio.to_thread(free_pages.prepare, state.store)
    return store
