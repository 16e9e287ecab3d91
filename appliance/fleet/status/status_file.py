"""Notes how the fleet stands each second, for commands: they are other processes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from appliance.config import fleet_note, state_file
from appliance.fleet.status.status import FleetStatus  # noqa: TC001 (msgspec reads annotations at run time)
from appliance.sessions.stopping import wait

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from appliance.domain.clock import Clock, Moment

log = logging.getLogger(__name__)

EVERY_S = 1.0


class NotedStatus(msgspec.Struct, frozen=True):
    """Holds the status as of a moment."""

    status: FleetStatus
    wall_ms: int
    boot_ms: int
    boot_id: str

    def is_fresh(self, now: Moment) -> bool:
        """Tells whether a server that runs now has noted it."""
        return fleet_note.is_recent(self.boot_id, self.boot_ms, now)


class StatusNotes:
    """Writes the status to a file, whole at any moment."""

    def __init__(self, file: Path, status: Callable[[], FleetStatus], clock: Clock) -> None:
        self._file = file
        self._status = status
        self._clock = clock
        self._fault: str | None = None  # as last logged

    async def run(self, stopping: asyncio.Event) -> None:
        """Writes each second until `stopping`, then removes the file."""
        while not stopping.is_set():
            await self.note()
            await wait(stopping, EVERY_S)
        try:
            state_file.forget(self._file)
        except OSError as error:
            log.warning("cannot remove %s: %s", self._file, error.strerror)

    async def note(self) -> None:
        """Writes the status. Only logs a failure, once: commands alone read it."""
        now = self._clock.now()
        noted = NotedStatus(self._status(), now.wall_ms, now.boot_ms, now.boot_id)
        text = msgspec.json.format(msgspec.json.encode(noted), indent=1).decode()
        fault = None
        try:
            await asyncio.to_thread(state_file.write, self._file, text)
        except OSError as error:
            fault = error.strerror or str(error)
            if fault != self._fault:
                log.warning("cannot note how the fleet stands in %s: %s", self._file, fault)
        self._fault = fault


def read(file: Path) -> NotedStatus | None:
    """Returns what was noted last; None: nothing. Raises OSError if it may not be read."""
    try:
        return msgspec.convert(state_file.read_json(file), NotedStatus)
    except (FileNotFoundError, state_file.Unfit, ValueError):  # msgspec's errors are ValueErrors, too
        return None
