"""Ticks: reads and bills all counters, repairs the tunnel, ends the sessions that are due."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from appliance.domain.errors import EgressError, StoreUnavailable, TunnelError
from appliance.sessions.convergence import fresh_keys
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import node as node_row
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    import asyncio

    from appliance.config.load import MeterSettings
    from appliance.domain.clock import Moment
    from appliance.network.reconcile import Changes
    from appliance.network.wireguard.tunnel import Link
    from appliance.sessions.convergence import Convergence
    from appliance.sessions.ending import Ending
    from appliance.sessions.metrics import Metrics
    from appliance.sessions.node import Node
    from appliance.sessions.records import Records
    from appliance.sessions.schedule import Schedule
    from appliance.store.token_cache import Tokens

log = logging.getLogger(__name__)

RETRY_S = 1.0  # after a tick that failed
SWEEP_MS = 3_600_000  # the longest between two sweeps


class Ticker:
    """Ticks about every second, when a session runs out, and at once when asked to. Ticks never overlap."""

    def __init__(
        self,
        *,
        records: Records,
        ending: Ending,
        convergence: Convergence,
        tokens: Tokens,
        node: Node,
        schedule: Schedule,
        turn: asyncio.Lock,
        settings: MeterSettings,
        metrics: Metrics,
    ) -> None:
        self._records = records
        self._ending = ending
        self._convergence = convergence
        self._tokens = tokens
        self._node = node
        self._schedule = schedule
        self._turn = turn
        self._settings = settings
        self._metrics = metrics
        self._link: Link | None = None  # as last read
        self._took_s = 0.0  # the last tick
        self._whole_at_ms: int | None = None  # when a whole tick last committed
        self._swept_at_ms: int | None = None
        self.last_tick_ms: int | None = None  # CLOCK_BOOTTIME at the end of the last whole tick
        self.ended_ms: int | None = None  # and of the last one at all, whatever it found
        self.ticks = 0
        self.failed_ticks = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Ticks until `stopping`; a tick under way is finished, never cut short."""
        while not stopping.is_set():
            rung = await self._schedule.wait(self._seconds_to_next)
            if not stopping.is_set():
                await self.tick(whole=rung)

    def _seconds_to_next(self) -> float:
        if not self._node.healthy:
            # No session can be ended now, however long it has been due.
            return RETRY_S
        # However near a limit, ticks take no more than half of the time.
        return max(self._schedule.seconds_to_next_look(), min(self._took_s, RETRY_S))

    async def tick(self, *, whole: bool = True) -> None:
        """Ticks once. What goes wrong is logged, shown by /readyz and tried again; it is not raised.

        A whole tick looks at everything and commits what it read. The others, about each second, read the counters and
        end the sessions that are due; they commit when they end one, or when `meter.interval` has passed.
        """
        async with self._turn:
            started = self._records.clock.now().boot_ms
            fault = None
            whole = whole or self._is_due() or not self._node.healthy
            try:
                await self._round(whole=whole)
            except (TunnelError, EgressError) as error:
                fault = str(error)
                self._link = None
                if not whole:
                    # Perhaps the interface has gone since it was last looked at: look again at once.
                    self._schedule.check_soon()
            except StoreUnavailable as error:
                self._records.live.stale = True
                fault = f"{error}: {error.__cause__}"
            self.ended_ms = self._records.clock.now().boot_ms
            self._took_s = (self.ended_ms - started) / 1000
        self._metrics.ticked(self._took_s, whole=whole)
        self._report(fault)
        await self._ending.release_addresses()

    def _report(self, fault: str | None) -> None:
        self.failed_ticks += fault is not None
        before = self._node.check_fault
        # Until the first whole tick the fault is the start's own, and ends it.
        if fault is not None and fault != before and self.ticks:
            log.error("not ready: %s", fault)
        elif fault is None and before is not None:
            log.info("ready")
        self._node.checked(fault)

    def _is_due(self) -> bool:
        now = self._records.clock.now().boot_ms
        return self._whole_at_ms is None or now >= self._whole_at_ms + self._settings.interval * 1000

    async def _round(self, *, whole: bool) -> None:
        asked = await self._take_requests()
        whole = whole or asked is not None
        if whole or self._link is None:
            self._link = await self._convergence.read_link()
        seen = None if self._link is None else await self._records.meter.observe()
        changes = await self._convergence.plan(self._link, None if seen is None else seen.dump)
        ending = self._schedule.due(seen)
        seen_until = self._records.live.beat
        if seen is not None and (whole or changes or ending):
            await self._records.meter.commit(seen)
            if whole:
                self._whole_at_ms = seen.now.boot_ms
        fault = await self._repair(changes, seen_until)
        all_ended = await self._ending.finish_free(ending)
        if whole:
            # Where a request is at work on a session that has to end, what was asked is not done yet.
            await self._keep_house(asked if all_ended else None)
        if fault is not None:
            raise fault
        if whole:
            self.last_tick_ms = self._records.clock.now().boot_ms
            self.ticks += 1

    async def _repair(self, changes: Changes, seen_until: Moment) -> EgressError | TunnelError | None:
        """Repairs the exit; returns what could not be put right, so that sessions that are due end all the same."""
        if not changes:
            return None
        await self._records.meter.restart(fresh_keys(changes), seen_until)
        try:
            fault = await self._convergence.apply(changes)
            if changes.link is not None:
                self._link = await self._convergence.read_link()
        except (EgressError, TunnelError) as error:
            return error
        return fault

    async def _keep_house(self, asked: int | None) -> None:
        await self._ending.clear_leftovers()
        await self._sweep()
        if asked is not None:
            async with self._records.store.write() as db:
                await node_row.mark_applied(db, asked)

    async def _take_requests(self) -> int | None:
        """Takes over what admin commands have written since the last tick.

        Returns the number of their request, to acknowledge once it is done; None where there is none.
        """
        async with self._records.store.read() as db:
            row = await node_row.read(db)
        self._node.drained = row.drained
        asked = row.requested if row.requested > row.applied else None
        if asked is not None or self._records.live.stale:
            self._tokens.forget()
            async with self._records.store.write() as db:
                await rows.close_for_disabled_accounts(db)
                sessions, baselines = await rows.unfinished(db), await rows.baselines(db)
                accounts = await account_rows.of_unfinished_sessions(db)
                # While no request can be between taking an address and storing it.
                self._ending.take_stock(sessions)
            self._records.live.load(sessions, baselines, accounts, row.beat)
            await self._records.meter.catch_up()
        return asked

    async def _sweep(self) -> None:
        """Drops sessions older than retention, once an hour, or more often where retention is shorter."""
        now = self._records.clock.now()
        retention_ms = self._settings.retention * 1000
        if self._swept_at_ms is not None and now.boot_ms < self._swept_at_ms + min(SWEEP_MS, retention_ms):
            return
        async with self._records.store.write() as db:
            await rows.forget_terminated(db, now.wall_ms - retention_ms)
        self._swept_at_ms = now.boot_ms
