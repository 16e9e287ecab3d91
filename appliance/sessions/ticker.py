"""Reads and bills all counters each tick, repairs the tunnel, ends the sessions that are due."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.domain import clock_steps
from appliance.domain.clock import rfc3339
from appliance.domain.errors import EgressError, StoreUnavailable, TunnelError
from appliance.store.queries import node as node_row

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from appliance.config.load import MeterSettings
    from appliance.domain.clock import Moment
    from appliance.domain.tiers import TierLimits
    from appliance.network.reconcile import Changes
    from appliance.network.wireguard.tunnel import Link
    from appliance.sessions.convergence import Convergence
    from appliance.sessions.metrics import Metrics
    from appliance.sessions.node import Node
    from appliance.sessions.records import Records
    from appliance.sessions.reloading import Reloading
    from appliance.sessions.schedule import Schedule
    from appliance.sessions.turnover import Turnover

log = logging.getLogger(__name__)

RETRY_S = 1.0  # after a tick that failed
# What is said of the clock: a time service that has set it may need as long until it can be asked.
DOUBT_MS = 15_000


class Ticker:
    """Ticks about every second, when a session runs out, and at once on request. Ticks never overlap."""

    def __init__(
        self,
        *,
        records: Records,
        turnover: Turnover,
        convergence: Convergence,
        reloading: Reloading,
        node: Node,
        schedule: Schedule,
        exit_lock: asyncio.Lock,
        settings: MeterSettings,
        metrics: Metrics,
    ) -> None:
        self._records = records
        self._turnover = turnover
        self._convergence = convergence
        self._reloading = reloading
        self._node = node
        self._schedule = schedule
        self._exit_lock = exit_lock
        self._settings = settings
        self._metrics = metrics
        self._link: Link | None = None  # as last read
        self._took_s = 0.0  # how long the last tick took
        self._whole_at_ms: int | None = None  # when a whole tick last committed
        self._doubted_since_ms: int | None = None  # CLOCK_BOOTTIME
        self._clock_doubted = False  # as last said
        self.routing_fault: str | None = None  # why clients' packets do not pass, by the last whole tick
        self.last_tick_ms: int | None = None  # CLOCK_BOOTTIME at the end of the last whole tick
        self.ended_ms: int | None = None  # and at the end of the last tick of any kind, failed or not
        self.ticks = 0
        self.failed_ticks = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Ticks until `stopping` is set. A tick that has begun is finished, never interrupted."""
        while not stopping.is_set():
            requested = await self._schedule.wait(self._seconds_to_next)
            if not stopping.is_set():
                await self.tick(whole=requested)

    def _seconds_to_next(self) -> float:
        if not self._node.health.healthy:
            # No session can be ended now: one that is due must not make ticks follow at once.
            return RETRY_S
        # Ticks take at most half of the time, however near a limit is.
        return max(self._schedule.seconds_to_next_look(), min(self._took_s, RETRY_S))

    async def tick(self, *, whole: bool = True) -> None:
        """Ticks once. Does not raise: a failure is logged, shown by /readyz, and retried.

        A whole tick compares everything and commits what it read. The others, about once a second, read the counters
        and end the sessions that are due; they commit when they end one, or when `meter.interval` has passed.
        """
        async with self._exit_lock:
            started = self._records.clock.now().boot_ms
            fault = None
            whole = whole or self._is_due() or not self._node.health.healthy
            try:
                await self._tick(whole=whole)
                fault = self.routing_fault
            except (TunnelError, EgressError) as error:
                fault = str(error)
                self._link = None
                if not whole:
                    # The interface may have gone since it was last read: read it again at once.
                    self._schedule.check_soon()
            except StoreUnavailable as error:
                self._records.live.mark_stale()
                fault = f"{error}: {error.__cause__}"
            self.ended_ms = self._records.clock.now().boot_ms
            self._took_s = (self.ended_ms - started) / 1000
        self._metrics.ticked(self._took_s, whole=whole)
        self._report(fault)
        self._report_clock()
        self._turnover.go_on()
        if self._convergence.take_compared_all():
            with suppress(StoreUnavailable):
                await self._records.store.shrink_memory()

    async def finish(self) -> None:
        """Ticks for the last time. The next start may have other tiers."""
        await self._turnover.settled()
        await self.tick()
        await self.settle(None)

    async def settle(self, tiers: Mapping[str, TierLimits] | None) -> None:
        """Counts, before these tiers are taken over, what their windows must not count; None: unknown ones.

        Does not raise: without that, what was not counted yet counts into the new windows.
        """
        async with self._exit_lock:
            try:
                await self._reloading.if_stale()
                await self._records.meter.settle(tiers)
            except StoreUnavailable as error:
                log.warning("session time counts into new windows: %s: %s", error, error.__cause__)

    def _report(self, fault: str | None) -> None:
        self.failed_ticks += fault is not None
        before = self._node.health.check_fault
        # Until the first whole tick, the start itself reports the fault and ends the program.
        if fault is not None and fault != before and self.ticks:
            log.error("not ready: %s", fault)
        elif fault is None and before is not None:
            log.info("ready")
        self._node.health.checked(fault)

    @property
    def fastest(self) -> int:
        """Returns the highest rate that was seen on this exit, in bytes per second."""
        return self._schedule.fastest

    @property
    def clock_ahead_ms(self) -> int:
        """Returns how far the host's wall clock is ahead of the one that is believed; 0: it is the one."""
        return self._records.clock.ahead_ms

    def _report_clock(self) -> None:
        """Logs when the host's wall clock begins to be doubted, and when it is believed again."""
        now, ahead_ms = self._records.clock.now(), self.clock_ahead_ms
        if not ahead_ms:
            self._doubted_since_ms = None
        elif self._doubted_since_ms is None:
            self._doubted_since_ms = now.boot_ms
        lasts = self._doubted_since_ms is not None and now.boot_ms - self._doubted_since_ms >= DOUBT_MS
        if lasts == self._clock_doubted:
            return
        self._clock_doubted = lasts
        if ahead_ms:
            log.warning(
                "the wall clock is %s what the boot clock and the last heartbeat say, and nothing synchronises it: "
                "going on with %s; synchronise it (%s), or if it is right: %s",
                *(clock_steps.in_words(ahead_ms), rfc3339(now.wall_ms), clock_steps.SYNCHRONISE, clock_steps.ACCEPT),
            )
        else:
            log.warning("the wall clock is believed again: it is %s", rfc3339(now.wall_ms))

    def _is_due(self) -> bool:
        now = self._records.clock.now().boot_ms
        return self._whole_at_ms is None or now >= self._whole_at_ms + self._settings.interval * 1000

    async def _tick(self, *, whole: bool) -> None:
        requested = await self._read_requests()
        whole = whole or requested is not None
        if whole:
            await self._convergence.observe_host(self._node)
        if whole or self._link is None:
            self._link = await self._convergence.read_link()
        seen = None if self._link is None else await self._records.meter.observe(whole=whole)
        self._turnover.look(seen)
        changes = await self._convergence.plan(self._link, None if seen is None else seen.dump)
        ending = self._schedule.due(seen)
        seen_until = self._records.live.heartbeat
        if seen is not None and (whole or changes or ending or seen.relabels or seen.connected):
            await self._records.meter.commit(seen)
            if whole:
                self._whole_at_ms = seen.now.boot_ms
        fault = await self._repair(changes, seen_until)
        all_ended = await self._turnover.finish_due(ending)
        # A command is not told that a peer is gone while it is there.
        removed = not (isinstance(fault, TunnelError) and changes.peers.removed)
        if whole and requested is not None and all_ended and removed:
            await self._acknowledge(requested)
        if fault is not None:
            raise fault
        if whole:
            self.routing_fault = await self._convergence.routing_fault(self._link)
            self.last_tick_ms = self._records.clock.now().boot_ms
            self.ticks += 1

    async def _repair(self, changes: Changes, seen_until: Moment) -> EgressError | TunnelError | None:
        """Repairs the exit. Returns the error instead of raising it, so that sessions that are due still end."""
        if not changes:
            return None
        await self._records.meter.restart(changes.peers.fresh, seen_until)
        await self._turnover.put_back(changes.peers.fresh)
        try:
            fault = await self._convergence.apply(changes)
            await self._turnover.note_installed(changes.peers.fresh)
            if changes.link is not None:
                self._link = await self._convergence.read_link()
        except (EgressError, TunnelError) as error:
            return error
        return fault

    async def _acknowledge(self, requested: int) -> None:
        """Tells the admin command that made the request of this number that it is done."""
        async with self._records.store.write() as db:
            await node_row.mark_applied(db, requested)

    async def _read_requests(self) -> int | None:
        """Reads what admin commands have written since the last tick, and all sessions if memory is not in sync.

        Returns the number of their request, to acknowledge once it is done; None if there is none.
        """
        async with self._records.store.read() as db:
            row = await node_row.read(db)
        self._node.drained = row.drained
        if row.accepted is not None:
            self._records.clock.accept(row.accepted)
        requested = row.requested if row.requested > row.applied else None
        if requested is not None:
            await self._reloading.run()
        else:
            await self._reloading.if_stale()
        return requested
