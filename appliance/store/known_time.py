"""Makes the clock that goes on from what the store knows of the time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.believed_clock import BelievedClock
from appliance.domain.errors import HostError
from appliance.store.queries import node

if TYPE_CHECKING:
    from appliance.domain.believed_clock import KeptClock
    from appliance.domain.clock import Clock, Moment
    from appliance.store.database import Store
    from appliance.store.state_dir import StateDir


class _Unasked:
    """Reads the host's clocks, and does not ask whether they are synchronised."""

    def __init__(self, host: Clock) -> None:
        self._host = host

    def now(self) -> Moment:
        return self._host.now()

    def synchronised(self) -> bool:
        return False


async def believed_clock(store: Store, host: KeptClock) -> BelievedClock:
    """Returns the clock for a server that starts, or for a command without one. Raises StoreUnavailable."""
    async with store.read() as db:
        return BelievedClock(host, (await node.read(db)).known(host.now()))


async def clock_beside_server(store: Store, host: KeptClock, state: StateDir) -> BelievedClock:
    """Returns the clock for a command, which goes by what a running server goes by: the time of its heartbeats.

    The server may not be able to ask what the command can. Raises StoreUnavailable.
    """
    return await believed_clock(store, _Unasked(host) if _is_served(state) else host)


def _is_served(state: StateDir) -> bool:
    try:
        return state.is_served()
    except HostError:
        return True  # the lock is another user's: a server of root's has made it
