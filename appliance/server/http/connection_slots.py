"""Limits the number of connections: when full, a new one evicts the one that has been idle longest."""

from __future__ import annotations

import socket
from contextlib import suppress


class ConnectionSlots:
    """Tracks connections. One is served while its request is worked on; at all other times it is idle: the server
    waits for the client."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._served: set[socket.socket] = set()
        self._waited_for: dict[socket.socket, None] = {}  # idle connections, the longest idle first

    def enter(self, connection: socket.socket) -> bool:
        """Admits a connection, evicting the longest idle one if full. Returns False if all are being served."""
        if len(self._served) + len(self._waited_for) >= self._most:
            if not self._waited_for:
                return False
            longest = next(iter(self._waited_for))
            del self._waited_for[longest]
            with suppress(OSError):  # it is closed already
                longest.shutdown(socket.SHUT_RDWR)
        self._waited_for[connection] = None
        return True

    def __contains__(self, connection: socket.socket) -> bool:
        """Tells whether the connection is admitted and has not been evicted."""
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
