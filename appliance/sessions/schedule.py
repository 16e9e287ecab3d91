"""Decides when the ticker looks at the sessions next, and what it ends then."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.domain.clock import Clock
    from appliance.domain.entities import Reason, Session
    from appliance.metering.meter import Observation
    from appliance.sessions.enforcement import Enforcement
    from appliance.sessions.wakeup import Wakeup


class Schedule:
    """Joins what limits make due with what is asked for at once."""

    def __init__(self, *, enforcement: Enforcement, wakeup: Wakeup, clock: Clock) -> None:
        self._enforcement = enforcement
        self._wakeup = wakeup
        self._clock = clock

    @property
    def fastest(self) -> int:
        """Returns the highest rate that was seen on this exit, in bytes per second."""
        return self._enforcement.fastest

    def check_soon(self) -> None:
        """Asks for a whole tick at once: the exit may differ from the store."""
        self._wakeup.request_tick()

    def opened(self, session: Session) -> None:
        """Takes a new session into account; the next tick may be due earlier for it."""
        if self._enforcement.opened(session, self._clock.now()):
            self._wakeup.reschedule()

    def due(self, seen: Observation | None) -> dict[bytes, Reason]:
        """Returns the keys of the sessions that must end, with the reasons. `seen` None: nothing could be read."""
        return self._enforcement.decide(seen, self._clock.now() if seen is None else seen.now)

    def seconds_to_next_look(self) -> float:
        """Returns how long no session can have to end."""
        return self._enforcement.seconds_to_next_look(self._clock.now())

    async def wait(self, seconds: Callable[[], float]) -> bool:
        """Waits for `seconds()`, asked again whenever the next tick may be due earlier. Returns whether a whole tick
        was asked for meanwhile."""
        return await self._wakeup.wait(seconds)
