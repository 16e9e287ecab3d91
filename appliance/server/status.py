"""Reports the state of a running exit to systemd: ready, status line, watchdog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.clock import rfc3339
from appliance.sessions.stopping import wait

if TYPE_CHECKING:
    import asyncio

    from appliance.domain.clock import Clock
    from appliance.server.systemd import Systemd
    from appliance.sessions.node import Node
    from appliance.sessions.readiness import Readiness
    from appliance.sessions.ticker import Ticker
    from appliance.store.live import LiveSessions

LOOK_S = 1.0
STATUS_S = 10.0  # between two lines that differ only in the time of the last tick


class ServiceStatus:
    """Reports to systemd during the life of the server.

    The watchdog is notified once for every tick that has ended, whatever it found. A tick that hangs, ticks that always
    crash and an event loop that is blocked can be fixed by a restart; a fault of the host cannot, and is shown instead.
    """

    def __init__(
        self,
        systemd: Systemd,
        *,
        node: Node,
        readiness: Readiness,
        live: LiveSessions,
        ticker: Ticker,
        clock: Clock,
    ) -> None:
        self._systemd = systemd
        self._node = node
        self._readiness = readiness
        self._live = live
        self._ticker = ticker
        self._clock = clock
        self._ready = False  # as last reported
        self._said: str | None = None  # the last status, without the time
        self._said_at_ms = 0
        self._alive_ms: int | None = None  # the end of the tick that was last reported
        self.remark: str | None = None  # about the last reload

    async def run(self, stopping: asyncio.Event) -> None:
        if not self._systemd.listens:
            return
        await self._become_ready(stopping)
        limit_s = self._systemd.watchdog_s
        pause_s = LOOK_S if limit_s is None else min(LOOK_S, limit_s / 4)
        while not await wait(stopping, pause_s):
            self._show()
            self._beat()

    def reloading(self) -> None:
        """Reports that a reload has begun; `reloaded` follows. Does nothing before the server is ready."""
        if self._ready:
            self._systemd.reloading()

    def reloaded(self) -> None:
        if self._ready:
            self._systemd.ready(self._line())

    async def _become_ready(self, stopping: asyncio.Event) -> None:
        while (fault := await self._readiness.fault()) is not None:
            self._systemd.status(f"starting: {fault}")
            if await wait(stopping, LOOK_S):
                return
        self._ready = True
        self._systemd.ready(self._line())

    def _show(self) -> None:
        now_ms = self._clock.now().boot_ms
        state = self._state()
        if state != self._said or now_ms - self._said_at_ms >= STATUS_S * 1000:
            self._said, self._said_at_ms = state, now_ms
            self._systemd.status(self._line())

    def _beat(self) -> None:
        if self._ticker.ended_ms != self._alive_ms:
            self._alive_ms = self._ticker.ended_ms
            self._systemd.alive()

    def _line(self) -> str:
        now, last_ms = self._clock.now(), self._ticker.last_tick_ms
        if last_ms is None:
            return self._state()
        return f"{self._state()}; last tick {rfc3339(now.wall_ms - (now.boot_ms - last_ms))}"

    def _state(self) -> str:
        fault = self._node.health.fault
        words = ["ready" if fault is None else f"not ready: {fault}"]
        if self._node.drained:
            words.append("drained, no new sessions")
        words.append(f"sessions live: {len(self._live)}")
        if self._ticker.clock_ahead_ms:
            words.append("the host's wall clock is not believed, see node status")
        if self.remark is not None:
            words.append(self.remark)
        return "; ".join(words)
