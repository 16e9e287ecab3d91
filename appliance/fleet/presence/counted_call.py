"""Counts and times requests to other exits: who does not answer is not asked for a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from appliance.domain.errors import NotAnswered

if TYPE_CHECKING:
    from prometheus_client import Histogram

    from appliance.domain.clock import Clock
    from appliance.fleet.link.wire import HubLink
    from appliance.fleet.presence.directory import Directory

TOGETHER_MS = 100  # who asks gives up at the time that it has given, or just before


class AsksExit(Protocol):
    """Sends a request to another exit, as `Rpc.call` does."""

    async def __call__(self, node_id: str, operation: str, payload: bytes, timeout_s: float) -> bytes:
        """Returns the answer. Raises FleetError: NotAnswered, if none has come in time."""
        ...


class CountedCall:
    """Asks by another call, and has the directory know which exits answer. `seconds`: of answers, by operation."""

    def __init__(
        self, call: AsksExit, directory: Directory, link: HubLink, clock: Clock, seconds: Histogram | None = None
    ) -> None:
        self._call = call
        self._directory = directory
        self._link = link
        self._clock = clock
        self._seconds = seconds

    async def __call__(self, node_id: str, operation: str, payload: bytes, timeout_s: float) -> bytes:
        """Returns the answer. Raises as the other call does."""
        if self._seconds is None:
            return await self._counted(node_id, operation, payload, timeout_s)
        with self._seconds.labels(operation).time():
            return await self._counted(node_id, operation, payload, timeout_s)

    async def _counted(self, node_id: str, operation: str, payload: bytes, timeout_s: float) -> bytes:
        ends_ms = self._clock.now().boot_ms + int(timeout_s * 1000)
        try:
            answer = await self._call(node_id, operation, payload, timeout_s)
        except NotAnswered:
            self._unanswered(node_id)
            raise
        except asyncio.CancelledError:
            if self._clock.now().boot_ms >= ends_ms - TOGETHER_MS:
                self._unanswered(node_id)
            raise
        self._directory.answered(node_id)
        return answer

    def _unanswered(self, node_id: str) -> None:
        """Counts it, unless the answer could not come: for a lost connection the other exit is not to blame."""
        if self._link.connected:
            self._directory.unanswered(node_id, self._clock.now())
