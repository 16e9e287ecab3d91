"""Limits the number of connections: when full, a new one evicts an idle one of the source that holds the most."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass, field

SHARES = 4  # a source's share of all places is one of so many


@dataclass(eq=False, slots=True)
class _Source:
    """Holds the connections of a source. `idle`: the longest idle first; `shared`: many clients' (a proxy's)."""

    shared: bool
    held: int = 0
    idle: dict[socket.socket, None] = field(default_factory=dict)


class ConnectionSlots:
    """Tracks connections by source. One is served while its request is worked on; at all other times it is idle: the
    server waits for the client.

    Beyond its share a source takes no place of the last free share, and when all are taken the source that holds the
    most makes room. Connections of no source (None), which many clients share, make room last and have no share.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = max(1, most // SHARES)
        self._kept_free = most // SHARES
        self._sources: dict[str | None, _Source] = {}
        self._source_of: dict[socket.socket, tuple[str | None, _Source]] = {}
        self._served: set[socket.socket] = set()
        self._ranks = _Ranks()

    def enter(self, connection: socket.socket, source: str | None = None) -> bool:
        """Admits a connection, evicting an idle one if there is no place for it. Returns False if none is idle."""
        place = self._sources.get(source) or _Source(shared=source is None)
        taken = len(self._source_of)
        if not place.shared and place.held >= self._share and taken >= self._most - self._kept_free:
            if not self._evict(place):
                return False
        elif taken >= self._most and not self._evict(self._ranks.highest() or self._sources.get(None)):
            return False
        # Made anew if what was evicted was its last one.
        place = self._sources.setdefault(source, place)
        self._source_of[connection] = source, place
        place.held += 1
        self._make_idle(connection, place)
        return True

    def __contains__(self, connection: socket.socket) -> bool:
        """Tells whether the connection is admitted and has not been evicted."""
        return connection in self._source_of

    def serve(self, connection: socket.socket) -> None:
        if connection in self._source_of and connection not in self._served:
            _, place = self._source_of[connection]
            self._served.add(connection)
            del place.idle[connection]
            self._ranks.put(place)

    def wait_for(self, connection: socket.socket) -> None:
        if connection in self._served:
            self._served.remove(connection)
            self._make_idle(connection, self._source_of[connection][1])

    def leave(self, connection: socket.socket) -> None:
        source, place = self._source_of.pop(connection, (None, None))
        if place is None:
            return
        self._served.discard(connection)
        place.idle.pop(connection, None)
        place.held -= 1
        self._ranks.put(place)
        if not place.held:
            del self._sources[source]

    def _make_idle(self, connection: socket.socket, place: _Source) -> None:
        place.idle[connection] = None
        self._ranks.put(place)

    def _evict(self, place: _Source | None) -> bool:
        longest = None if place is None else next(iter(place.idle), None)
        if longest is None:
            return False
        self.leave(longest)
        with suppress(OSError):  # it is closed already
            longest.shutdown(socket.SHUT_RDWR)
        return True


class _Ranks:
    """Orders the sources that have an idle connection by how many they hold, in constant time for each change.

    Among equals the one that changed longest ago is the first: of sources with one connection each, the longest idle.
    """

    def __init__(self) -> None:
        self._by_held: dict[int, dict[_Source, None]] = {}
        self._rank_of: dict[_Source, int] = {}
        self._most = 0

    def put(self, place: _Source) -> None:
        """Takes up how many connections a source holds now, and whether one is idle."""
        before = self._rank_of.pop(place, None)
        if before is not None:
            del self._by_held[before][place]
            if not self._by_held[before]:
                del self._by_held[before]
        if place.idle and not place.shared:
            self._rank_of[place] = place.held
            self._by_held.setdefault(place.held, {})[place] = None
            self._most = max(self._most, place.held)

    def highest(self) -> _Source | None:
        while self._most and self._most not in self._by_held:
            self._most -= 1
        return next(iter(self._by_held[self._most])) if self._most else None
