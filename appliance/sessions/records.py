"""Groups what every change of a session is recorded in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.metering.lending import GrantSource

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import aiosqlite

    from appliance.domain.believed_clock import BelievedClock
    from appliance.metering.meter import Meter
    from appliance.sessions.ended import Ended
    from appliance.store.database import Store
    from appliance.store.live import LiveSessions
    from appliance.store.live_devices import LiveDevices


@dataclass(frozen=True, slots=True)
class Records:
    """Holds the store, its copy in memory, the meter that adds to both, and the clock that dates what is recorded.

    `ended`: the ends that the store is yet to be told. `lending`: what other exits leave of accounts' limits.
    """

    store: Store
    live: LiveSessions
    devices: LiveDevices
    meter: Meter
    clock: BelievedClock
    ended: Ended
    lending: GrantSource = field(default_factory=GrantSource)

    def committing(self) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        """Returns a transaction that memory follows. It raises StoreUnavailable: if it cannot be committed."""
        return self.live.committing(self.store)
