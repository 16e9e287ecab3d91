"""Puts members out of the hub for a while that send more, or hold more connections, than an exit does.

nats-server bounds neither for one user. What one member sends to all, they have to read: the connections of those that
are slower would end.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from appliance.domain.errors import FleetError
from appliance.sessions.stopping import wait

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping

    from appliance.domain.clock import Clock

log = logging.getLogger(__name__)

LOOK_S = 2.0
# An exit reports at most 200 sessions a second, and asks others as often as clients of its API ask it.
MOST_PER_S, MOST_BYTES_PER_S = 3000, 16 * 1024 * 1024
MOST_CONNECTIONS = 16  # one, and those that ended and are not known to have


class UserConnection(msgspec.Struct, frozen=True):
    """Describes a connection to nats-server. `user`: its NKEY; the rest: what came by it so far."""

    cid: int
    user: str = msgspec.field(name="authorized_user", default="")
    messages: int = msgspec.field(name="in_msgs", default=0)
    bytes: int = msgspec.field(name="in_bytes", default=0)


class Sent(NamedTuple):
    """Sums what came from a user."""

    messages: int = 0
    bytes: int = 0
    connections: int = 0


class Watched(Protocol):
    """Tells the connections of the hub's nats-server."""

    async def connections(self, server_name: str) -> list[UserConnection]:
        """Raises FleetError."""
        ...


def sent_since(before: Mapping[int, UserConnection], now: Iterable[UserConnection]) -> dict[str, Sent]:
    """Returns what each user has sent since then, and how many connections it has now."""
    found: dict[str, Sent] = {}
    for each in now:
        was = before.get(each.cid, UserConnection(each.cid))
        sent = found.get(each.user, Sent())
        found[each.user] = Sent(
            sent.messages + each.messages - was.messages, sent.bytes + each.bytes - was.bytes, sent.connections + 1
        )
    return found


def excess(sent: Sent, seconds: float) -> str | None:
    """Returns what a user does too much; None: nothing."""
    if sent.messages > MOST_PER_S * seconds:
        return f"sends {sent.messages / seconds:.0f} messages a second"
    if sent.bytes > MOST_BYTES_PER_S * seconds:
        return f"sends {sent.bytes / seconds / 2**20:.0f} MiB a second"
    if sent.connections > MOST_CONNECTIONS:
        return f"has {sent.connections} connections"
    return None


class HubWatch:
    """Looks. `put_out`: is told an NKEY, and what it does too much."""

    def __init__(self, watched: Watched, server_name: str, put_out: Callable[[str, str], None], clock: Clock) -> None:
        self._watched = watched
        self._server_name = server_name
        self._put_out = put_out
        self._clock = clock
        self._before: dict[int, UserConnection] = {}
        self._looked_ms: int | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Looks until `stopping`."""
        while not stopping.is_set():
            try:
                await self.look()
            except FleetError as error:  # it is away, or starts
                log.debug("the hub's connections are not known: %s", error)
                self._looked_ms = None
            await wait(stopping, LOOK_S)

    async def look(self) -> None:
        """Looks once; the first time there is nothing to compare with but the connections. Raises FleetError."""
        found = await self._watched.connections(self._server_name)
        now_ms, looked_ms = self._clock.now().boot_ms, self._looked_ms
        sent = sent_since(self._before, found)
        self._before, self._looked_ms = {each.cid: each for each in found}, now_ms
        for user, each in sent.items():
            counted = each if looked_ms is not None else Sent(connections=each.connections)
            fault = excess(counted, max(1.0, (now_ms - (looked_ms or 0)) / 1000))
            if fault is not None:
                self._put_out(user, fault)
