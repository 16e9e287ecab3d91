"""Reloads the configuration on SIGHUP: applies what a running server can, and reports what needs a restart."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from appliance.config.reloadable import left_out
from appliance.domain.errors import ConfigError
from appliance.server.supervisor import wait_either

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from appliance.config.settings import Settings
    from appliance.server.status import ServiceStatus
    from appliance.sessions.ticker import Ticker

log = logging.getLogger(__name__)


class Reload:
    """Reloads the configuration. Complete when a whole tick has applied it to the host and the live sessions."""

    def __init__(
        self,
        running: Settings,
        read_settings: Callable[[], Settings],
        take_over: Callable[[Settings], None],
        ticker: Ticker,
        status: ServiceStatus,
    ) -> None:
        self._running = running
        self._read_settings = read_settings
        self._take_over = take_over
        self._ticker = ticker
        self._status = status

    async def run(self, asked: asyncio.Event, stopping: asyncio.Event) -> None:
        """Reloads each time `asked` is set, until `stopping`."""
        while not stopping.is_set():
            await wait_either(asked, stopping)
            if asked.is_set():
                asked.clear()
                self._status.reloading()
                try:
                    await self._reload()
                finally:
                    self._status.reloaded()

    async def _reload(self) -> None:
        try:
            read = self._read_settings()
        except ConfigError as error:
            log.error("the configuration is not taken over: %s", error)
            self._status.remark = f"the configuration is not taken over: {error}"
            return
        await self._ticker.settle(read.tiers)
        self._take_over(read)
        log.info("tiers, prices and egress are taken over from the configuration")
        self._status.remark = None
        waiting = ", ".join(left_out(self._running, read))
        if waiting:
            log.warning("changed, and needs a restart: %s", waiting)
            self._status.remark = f"changed, and needs a restart: {waiting}"
        await self._ticker.tick()
