"""Who is connected: so many at most, and whoever keeps us waiting makes room for whoever comes."""

from __future__ import annotations

import socket
from contextlib import suppress


class ConnectionSlots:
    """A connection waits for us while its request is worked on; at all other times we wait for it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._served: set[socket.socket] = set()
        self._waited_for: dict[socket.socket, None] = {}  # the longest first

    def enter(self, connection: socket.socket) -> bool:
        """Whether there is room. The one that was waited for the longest loses its place where there was none."""
        if len(self._served) + len(self._waited_for) >= self._most:
            if not self._waited_for:
                return False
            longest = next(iter(self._waited_for))
            del self._waited_for[longest]
            with suppress(OSError):  # it is gone already
                longest.shutdown(socket.SHUT_RDWR)
        self._waited_for[connection] = None
        return True

    def __contains__(self, connection: socket.socket) -> bool:
        """It has its place still."""
        return connection in self._served or connection in self._waited_for

    def serve(self, connection: socket.socket) -> None:
        if connection in self._waited_for:
            del self._waited_for[connection]
            self._served.add(connection)

    def wait_for(self, connection: socket.socket) -> None:
        if connection in self._served:
            self._served.remove(connection)
            self._waited_for[connection] = None

    def leave(self, connection: socket.socket) -> None:
        self._served.discard(connection)
        self._waited_for.pop(connection, None)
