"""Tells whether this exit works right now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.errors import StoreUnavailable, TunnelError
from appliance.store.queries import node as node_row

if TYPE_CHECKING:
    from appliance.domain.clock import Clock
    from appliance.network.wireguard.tunnel import Tunnel
    from appliance.sessions.node import NodeHealth
    from appliance.store.database import Store

FRESH_MS = 1000


class Readiness:
    """Asks store and tunnel at most once a second, however many requests ask."""

    def __init__(self, store: Store, tunnel: Tunnel, health: NodeHealth, clock: Clock) -> None:
        self._store = store
        self._tunnel = tunnel
        self._health = health
        self._clock = clock
        self._asked_at_ms: int | None = None
        self._fault: str | None = None

    async def fault(self) -> str | None:
        """Returns why the exit is not ready, or None if it is."""
        now = self._clock.now().boot_ms
        if self._asked_at_ms is None or now - self._asked_at_ms >= FRESH_MS:
            self._asked_at_ms = now
            self._fault = await self._ask()
        return self._health.fault or self._fault

    async def _ask(self) -> str | None:
        try:
            async with self._store.read() as db:
                await node_row.read(db)
            link = await self._tunnel.link()
        except (StoreUnavailable, TunnelError) as error:
            return str(error)
        if link is None:
            return "the WireGuard interface is gone"
        return None if link.up else "the WireGuard interface is down"
