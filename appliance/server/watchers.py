"""Watches the store and the kernel in background tasks, and requests a tick when something has changed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from appliance.domain.errors import StoreUnavailable
from appliance.sessions.stopping import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from appliance.network.netlink.events import NetlinkEvents
    from appliance.sessions.wakeup import Wakeup
    from appliance.store.database import Store
    from appliance.store.token_cache import Tokens

STORE_POLL_S = 0.25
HOST_APART_S = 0.2  # of the second within which a change of the host is to be taken over
LOOK_S = 0.5  # plus the poll interval, less than the second within which a revoked token must be noticed


async def watch_store(store: Store, tokens: Tokens, wakeup: Wakeup, stopping: asyncio.Event) -> None:
    """Requests a tick when an admin command has written to the store, so that its change is applied at once.

    While the store cannot be read, no token is cached for longer than a poll takes.
    """
    seen = None
    try:
        while not await wait(stopping, STORE_POLL_S):
            try:
                async with asyncio.timeout(LOOK_S):
                    version = await store.foreign_version()
            except (StoreUnavailable, TimeoutError):
                tokens.forget()
                continue  # the tick meets the same fault, and reports it
            if version != seen:
                tokens.forget()
                if seen is not None:
                    wakeup.request_tick()
            seen, tokens.watched = version, True
    finally:
        # Until this runs again, revoked tokens would not be noticed.
        tokens.watched = False
        tokens.forget()


class EventsWatch:
    """Requests a tick on kernel events, which are collected from its creation on.

    `kinds`: the repairs that the events call for. While these have to wait, further events do too. `apart_s`: for how
    long events wait after others at least: a link of a container's may come and go hundreds of times a second.
    """

    def __init__(
        self,
        open_events: Callable[[], NetlinkEvents],
        wakeup: Wakeup,
        stopping: asyncio.Event,
        kinds: Iterable[str] = (),
        apart_s: float = 0.0,
    ) -> None:
        self._open = open_events
        self._wakeup = wakeup
        self._stopping = stopping
        self._kinds = tuple(kinds)
        self._apart_s = apart_s
        self._events = open_events()

    def close(self) -> None:
        self._events.close()

    async def run(self) -> None:
        """Watches until `stopping`. May be run again after a failure."""
        try:
            await self._watch()
        except Exception:
            self._events.close()
            self._events = self._open()
            self._events.lost()
            self._wakeup.request_tick()
            raise

    async def _watch(self) -> None:
        stopped = asyncio.ensure_future(self._stopping.wait())
        while not self._stopping.is_set():
            happened = asyncio.ensure_future(self._events.happened())
            await asyncio.wait({happened, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if happened.done():
                happened.result()
                self._wakeup.request_tick()
                if pause_s := self._wakeup.calm_s(self._kinds):
                    await wait(self._stopping, pause_s)
                    self._wakeup.request_tick()
                elif self._apart_s:
                    await wait(self._stopping, self._apart_s)
            else:
                happened.cancel()
        stopped.cancel()
