"""A member that sends or connects more than an exit does is put out of the hub for a while."""

from __future__ import annotations

import asyncio

from appliance.domain.errors import CutOff
from appliance.fleet.hub.watch import MOST_BYTES_PER_S, MOST_CONNECTIONS, MOST_PER_S, HubWatch, UserConnection
from tests.support.virtual_clock import VirtualClock


class Server:
    """Has these connections."""

    def __init__(self) -> None:
        self.has: list[UserConnection] = []
        self.away = False

    async def connections(self, _server_name: str) -> list[UserConnection]:
        if self.away:
            raise CutOff("it starts")
        return self.has


def put_out(*looks: list[UserConnection] | None) -> list[str]:
    """Looks each second; None: the server is away. Returns who is put out."""
    server, clock, out = Server(), VirtualClock(), list[str]()
    watch = HubWatch(server, "hub", lambda user, _why: out.append(user), clock)

    async def story() -> None:
        for found in looks:
            server.away, server.has = found is None, found or []
            stopping = asyncio.Event()
            looking = asyncio.create_task(watch.run(stopping))
            await asyncio.sleep(0)
            stopping.set()
            await looking
            clock.advance(1)

    asyncio.run(story())
    return out


def test_floods() -> None:
    """By messages or bytes, over all connections of a member, also those that are new; not by what came long ago."""
    old = UserConnection(1, "AMS", 10**9, 10**15)
    assert put_out([old], [old]) == []
    assert put_out([old], [UserConnection(1, "AMS", 10**9 + MOST_PER_S, 10**15 + MOST_BYTES_PER_S)]) == []
    assert put_out([old], [UserConnection(1, "AMS", 10**9 + MOST_PER_S + 1, 10**15)]) == ["AMS"]
    assert put_out([old], [old, UserConnection(2, "FRA", 0, MOST_BYTES_PER_S + 1)]) == ["FRA"]
    many = [UserConnection(number, "AMS", MOST_PER_S // 2) for number in (2, 3, 4)]
    assert put_out([old], [old, *many]) == ["AMS"]


def test_a_server_that_was_away_has_counted_since_it_was_seen() -> None:
    """What came in the meantime is of no known time."""
    assert put_out([UserConnection(1, "AMS")], None, [UserConnection(1, "AMS", 10**9)]) == []


def test_connections_without_end() -> None:
    """They would take those of others; the server's own user and a member have few."""
    few = [UserConnection(number, "AMS") for number in range(MOST_CONNECTIONS)]
    assert put_out(few) == []
    assert put_out([*few, UserConnection(99, "AMS")]) == ["AMS"]
