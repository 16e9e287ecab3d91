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
async def checking(path: Path) -> AsyncIterator[asyncio.Future[None]]:
    """Checks the store's file in a thread, from now on; the block goes on meanwhile, and does not use the file.

    Yields what is to be awaited before it does: it raises StoreError as `integrity.check` does. Ends when the check
    has ended.
    """
    checked = asyncio.get_running_loop().run_in_executor(None, integrity.check, path)
    try:
        yield checked
    finally:
        # A block that failed may not have awaited it: what the block failed with is said.
        await asyncio.gather(checked, return_exceptions=True)


async def open_store(state: StateDir, metrics: Metrics, stack: AsyncExitStack) -> Store:
    """Opens the store, which was checked, or creates it; it is closed with `stack`."""
    state.create_store()
    store = await Store.open(state.store, observer=metrics.store_used)
    stack.push_async_callback(store.close)
    await asyncio.to_thread(free_pages.prepare, state.store)
    return store
