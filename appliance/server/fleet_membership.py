"""Has this host take part in its fleet for as long as it is in one. On a single host nothing of it is imported."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from appliance._native import lib
from appliance.domain.errors import FleetError, HostError, StoreUnavailable
from appliance.sessions.stopping import wait

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from typing import Any

    from appliance.config.load import Settings
    from appliance.fleet.hub.hub_serving import HubServing
    from appliance.server.fleet_assembly import FleetPart
    from appliance.server.served_exit import ServedExit

log = logging.getLogger(__name__)

RETRY_S = 5.0
ENDS_WITHIN_S, CHANGES_WITHIN_S = 2.0, 0.3
LOOK_S = 0.5  # how soon a command that joins a fleet, or leaves it, is followed


class FleetMembership:
    """Looks whether the host is in a fleet. Commands join and leave: they are other processes."""

    def __init__(self, here: ServedExit) -> None:
        self._here = here
        self._part: FleetPart | None = None
        self._read: Settings | None = None  # by SIGHUP, and not told the fleet yet

    def over(self, read: Settings) -> Settings:
        """Returns settings that were read anew, on a spoke with the fleet's tiers and prices."""
        self._read = read
        self._here = self._here.reloaded(read)  # for a part that is built later
        return read if self._part is None else self._part.over(read)

    async def run(self, stopping: asyncio.Event) -> None:
        """Takes part whenever the host is in a fleet, until `stopping`.

        What the fleet lacks makes this exit no worse: it is logged, and tried again.
        """
        while not stopping.is_set():
            if self._here.state.in_fleet:
                await self._tried(self._be_member(stopping), stopping)
            await wait(stopping, LOOK_S)

    async def _tried(self, work: Coroutine[Any, Any, None], stopping: asyncio.Event) -> None:
        """Waits after a fault, until it is to be tried again."""
        try:
            await work
        except* (FleetError, HostError, StoreUnavailable) as errors:
            for error in errors.exceptions:
                log.error("this host takes no part in its fleet, until it is tried again: %s", error)
            await wait(stopping, RETRY_S)
        except* Exception as errors:  # what another host has sent is no reason for this one to end
            log.error("this host takes no part in its fleet, until it is tried again", exc_info=errors)
            await wait(stopping, RETRY_S)

    async def _be_member(self, stopping: asyncio.Event) -> None:
        """Takes part, while the host is in the fleet; its nats-server, if it has one, runs all that time."""
        await asyncio.to_thread(_import_part)  # takes a second, and several on a slow host: the exit goes on meanwhile
        from appliance.server import fleet_build

        serving, ended = await fleet_build.serving(self._here), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(serving.run(ended), name="the hub's server")
            try:
                while self._here.state.in_fleet and not stopping.is_set():
                    await self._tried(self._take_part(serving, stopping), stopping)
            finally:
                ended.set()

    async def _take_part(self, serving: HubServing, stopping: asyncio.Event) -> None:
        from appliance.fleet.status.collector import FleetCollector
        from appliance.server import fleet_build

        built = await fleet_build.build(self._here, serving)
        if built is None:
            return
        part, hub = built
        collector = FleetCollector(part.status, part.counts())
        self._part = part
        self._here.metrics.registry.register(collector)
        try:
            await part.begin(hub)
            await self._run(part, stopping)
        finally:
            self._part = None
            self._here.metrics.registry.unregister(collector)
            await part.end()

    async def _run(self, part: FleetPart, stopping: asyncio.Event) -> None:
        ending = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            endless = [group.create_task(each(), name=name) for name, each in part.endless().items()]
            tasks = [group.create_task(run(ending), name=name) for name, run in part.tasks().items()]
            await part.connect()
            while self._here.state.in_fleet and not stopping.is_set() and await part.is_as_built():
                if self._read is not None:
                    read, self._read = self._read, None
                    await part.reloaded(read)
                await wait(stopping, LOOK_S)
            ending.set()
            for task in endless:
                task.cancel()
            # A host that is to be another part at once, as when it leads, has no time for what awaits a lost hub.
            within_s = ENDS_WITHIN_S if stopping.is_set() else CHANGES_WITHIN_S
            await _end([*endless, *tasks], within_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(ENDS_WITHIN_S):
                    await part.disconnect(within_s)


def _import_part() -> None:
    import appliance.fleet.status.collector
    import appliance.server.fleet_build  # noqa: F401

    lib.wga_trim_memory()  # what importing has used, and is free again


async def _end(tasks: Iterable[asyncio.Task[None]], within_s: float) -> None:
    """Waits for tasks that were told to end; cancels those that wait for an answer still: `serve` has seconds."""
    _, late = await asyncio.wait(tasks, timeout=within_s)
    for task in late:
        task.cancel()
