"""The tick: read and bill all counters, repair the tunnel, end what has to end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from appliance.entities import Reason, Session, State
from appliance.errors import EgressError, StoreUnavailable, TunnelError
from appliance.nodes import RETRY_S
from appliance.policy import termination
from appliance.store import node as node_row
from appliance.store import sessions as rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.clock import Clock
    from appliance.config import MeterSettings, TierSettings
    from appliance.convergence import Convergence
    from appliance.live import LiveSessions
    from appliance.meter import Meter
    from appliance.nodes import Node
    from appliance.sessions import Sessions
    from appliance.store.connection import Store
    from appliance.wireguard.tunnel import Tunnel

log = logging.getLogger(__name__)

RETENTION_EVERY_MS = 3_600_000


class Egress(Protocol):
    async def ensure(self) -> None:
        """NAT, forwarding and blocks are in place. Raises EgressError."""


class Ticker:
    """Ticks every `meter.interval`, when a session expires, and when `check_soon` is called. Ticks never overlap."""

    def __init__(
        self,
        *,
        store: Store,
        tunnel: Tunnel,
        meter: Meter,
        sessions: Sessions,
        convergence: Convergence,
        egress: Egress,
        live: LiveSessions,
        node: Node,
        tiers: Mapping[str, TierSettings],
        settings: MeterSettings,
        clock: Clock,
        turn: asyncio.Lock,
        woken: asyncio.Event,
    ) -> None:
        self._store = store
        self._tunnel = tunnel
        self._meter = meter
        self._sessions = sessions
        self._convergence = convergence
        self._egress = egress
        self._live = live
        self._node = node
        self._tiers = tiers
        self._settings = settings
        self._clock = clock
        self._turn = turn
        self._woken = woken
        self._stale = True  # memory may differ from the store
        self._swept_at_ms: int | None = None
        self.last_tick_ms: int | None = None  # CLOCK_BOOTTIME at the end of the last whole tick
        self.ticks = 0
        self.failed_ticks = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Tick until `stopping`; a tick under way is finished, never cut short."""
        while not stopping.is_set():
            await self._wait()
            self._woken.clear()
            if not stopping.is_set():
                await self.tick()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._seconds_to_next()):
                await self._woken.wait()
        except TimeoutError:
            return

    def _seconds_to_next(self) -> float:
        seconds: float = self._settings.interval
        if not self._node.healthy:
            # Nothing can be ended now, however long it has been due.
            return min(seconds, RETRY_S)
        expiry = self._live.next_expiry()
        if expiry is not None:
            seconds = min(seconds, max(0.05, (expiry - self._clock.now().wall_ms) / 1000))
        return seconds

    async def tick(self) -> None:
        """One whole tick. What goes wrong is logged, shown by /readyz and tried again; it is not raised."""
        async with self._turn:
            fault = None
            try:
                await self._round()
                self.last_tick_ms = self._clock.now().boot_ms
                self.ticks += 1
            except (TunnelError, EgressError) as error:
                fault = str(error)
            except StoreUnavailable as error:
                # A transaction that failed may have been committed all the same: read the store again first.
                self._stale = True
                fault = f"{error}: {error.__cause__}"
        self.failed_ticks += fault is not None
        # Until the first whole tick the fault is the start's own, and ends it.
        if fault is not None and fault != self._node.fault and self.ticks:
            log.error("not ready: %s", fault)
        elif fault is None and self._node.fault is not None:
            log.info("ready")
        self._node.checked(fault, self._clock.now().boot_ms)

    async def _round(self) -> None:
        asked = await self._take_requests()
        # First, so that nothing is forwarded without its rules, and the sysctls are noted before the link changes any.
        await self._egress.ensure()
        link = await self._tunnel.link()
        dump = None if link is None else await self._meter.read()
        await self._convergence.converge(link, dump)
        await self._sessions.finish([e for e in self._ending() if self._sessions.may_finish(e[0])])
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
        if asked is not None or self._stale:
            async with self._store.write() as db:
                await rows.close_for_disabled_accounts(db)
                sessions, baselines = await rows.unfinished(db), await rows.baselines(db)
            self._live.load(sessions, baselines)
            self._stale = False
        return asked

    def _ending(self) -> list[tuple[Session, Reason]]:
        now = self._clock.now()
        ending = []
        for session in self._live.by_key.values():
            if session.state is State.CLOSING:
                reason: Reason | None = session.reason
            else:
                reason = termination.decide(session, self._tiers[session.account_tier], now)
            if reason is not None:
                ending.append((session, reason))
        return ending

    async def _sweep(self) -> None:
        """Drop sessions older than retention, once an hour."""
        now = self._clock.now()
        if self._swept_at_ms is not None and now.boot_ms < self._swept_at_ms + RETENTION_EVERY_MS:
            return
        async with self._store.write() as db:
            await rows.forget_terminated(db, now.wall_ms - self._settings.retention * 1000)
        self._swept_at_ms = now.boot_ms
