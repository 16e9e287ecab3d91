"""The tick: read and bill all counters, repair the tunnel, end what has to end."""

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
    from appliance.domain.clock import Clock, Moment
    from appliance.metering.meter import Meter
    from appliance.network.reconcile import Changes
    from appliance.network.wireguard.tunnel import Link, Tunnel
    from appliance.sessions.convergence import Convergence
    from appliance.sessions.enforcement import Endings
    from appliance.sessions.lookup import Sessions
    from appliance.sessions.metrics import Metrics
    from appliance.sessions.node import Node
    from appliance.sessions.wakeup import Alarm
    from appliance.store.database import Store
    from appliance.store.live import LiveSessions
    from appliance.store.token_cache import Tokens

log = logging.getLogger(__name__)

RETRY_S = 1.0  # after a tick that failed
SWEEP_MS = 3_600_000  # the longest between two sweeps


class Ticker:
    """Ticks about every second, when a session runs out, and at once when the alarm rings. Ticks never overlap."""

    def __init__(
        self,
        *,
        store: Store,
        tunnel: Tunnel,
        meter: Meter,
        sessions: Sessions,
        convergence: Convergence,
        live: LiveSessions,
        tokens: Tokens,
        node: Node,
        endings: Endings,
        settings: MeterSettings,
        clock: Clock,
        turn: asyncio.Lock,
        alarm: Alarm,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._tunnel = tunnel
        self._meter = meter
        self._sessions = sessions
        self._convergence = convergence
        self._live = live
        self._tokens = tokens
        self._node = node
        self._endings = endings
        self._settings = settings
        self._clock = clock
        self._turn = turn
        self._alarm = alarm
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
        """Tick until `stopping`; a tick under way is finished, never cut short."""
        while not stopping.is_set():
            rung = await self._alarm.wait(self._seconds_to_next)
            if not stopping.is_set():
                await self.tick(whole=rung)

    def _seconds_to_next(self) -> float:
        if not self._node.healthy:
            # Nothing can be ended now, however long it has been due.
            return RETRY_S
        # However near a limit, ticks take no more than half of the time.
        return max(self._endings.seconds_to_next_look(self._clock.now()), min(self._took_s, RETRY_S))

    async def tick(self, *, whole: bool = True) -> None:
        """One tick. What goes wrong is logged, shown by /readyz and tried again; it is not raised.

        A whole tick looks at everything and commits what it read. The others, about each second, read the counters and
        end who has used up a window; they commit when they end somebody, or when `meter.interval` has passed.
        """
        async with self._turn:
            started = self._clock.now().boot_ms
            fault = None
            whole = whole or self._is_due() or not self._node.healthy
            try:
                await self._round(whole=whole)
            except (TunnelError, EgressError) as error:
                fault = str(error)
                self._link = None
                if not whole:
                    # Perhaps the interface has gone since it was last looked at: look again at once.
                    self._alarm.ring()
            except StoreUnavailable as error:
                self._live.stale = True
                fault = f"{error}: {error.__cause__}"
            self.ended_ms = self._clock.now().boot_ms
            self._took_s = (self.ended_ms - started) / 1000
        self._metrics.ticked(self._took_s, whole=whole)
        self._report(fault)
        await self._sessions.release_addresses()

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
        now = self._clock.now().boot_ms
        return self._whole_at_ms is None or now >= self._whole_at_ms + self._settings.interval * 1000

    async def _round(self, *, whole: bool) -> None:
        asked = await self._take_requests()
        whole = whole or asked is not None
        if whole or self._link is None:
            self._link = await self._tunnel.link()
        seen = None if self._link is None else await self._meter.observe()
        changes = await self._convergence.plan(self._link, None if seen is None else seen.dump)
        ending = self._endings.decide(seen, self._clock.now() if seen is None else seen.now)
        seen_until = self._live.beat
        if seen is not None and (whole or changes or ending):
            await self._meter.commit(seen)
            if whole:
                self._whole_at_ms = seen.now.boot_ms
        fault = await self._repair(changes, seen_until)
        all_ended = await self._sessions.finish_free(ending)
        if whole:
            # Where a request is at work on a session that has to end, what was asked is not done yet.
            await self._keep_house(asked if all_ended else None)
        if fault is not None:
            raise fault
        if whole:
            self.last_tick_ms = self._clock.now().boot_ms
            self.ticks += 1

    async def _repair(self, changes: Changes, seen_until: Moment) -> EgressError | TunnelError | None:
        """What could not be put right is returned: whoever has to end ends all the same."""
        if not changes:
            return None
        await self._meter.restart(fresh_keys(changes), seen_until)
        try:
            fault = await self._convergence.apply(changes)
            if changes.link is not None:
                self._link = await self._tunnel.link()
        except (EgressError, TunnelError) as error:
            return error
        return fault

    async def _keep_house(self, asked: int | None) -> None:
        await self._sessions.clear_leftovers()
        await self._sweep()
        if asked is not None:
            async with self._store.write() as db:
                await node_row.mark_applied(db, asked)

    async def _take_requests(self) -> int | None:
        """Take over what admin commands have written since; returns the number to acknowledge."""
        async with self._store.read() as db:
            row = await node_row.read(db)
        self._node.drained = row.drained
        asked = row.requested if row.requested > row.applied else None
        if asked is not None or self._live.stale:
            self._tokens.forget()
            async with self._store.write() as db:
                await rows.close_for_disabled_accounts(db)
                sessions, baselines = await rows.unfinished(db), await rows.baselines(db)
                accounts = await account_rows.of_unfinished_sessions(db)
                # While no request can be between taking an address and storing it.
                self._sessions.take_stock(sessions)
            self._live.load(sessions, baselines, accounts, row.beat)
            await self._meter.catch_up()
        return asked

    async def _sweep(self) -> None:
        """Drop sessions older than retention, once an hour, or as often as retention is short."""
        now = self._clock.now()
        retention_ms = self._settings.retention * 1000
        if self._swept_at_ms is not None and now.boot_ms < self._swept_at_ms + min(SWEEP_MS, retention_ms):
            return
        async with self._store.write() as db:
            await rows.forget_terminated(db, now.wall_ms - retention_ms)
        self._swept_at_ms = now.boot_ms
