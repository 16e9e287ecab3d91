"""Many requests over kept connections, with as little work as can be on the asking side."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CONNECTIONS = 64  # so that the server always has something to do
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Asker:
    """The same GET on several connections at once, answered 200 each time."""

    def __init__(self, path: Path, target: str, token: str) -> None:
        lines = [f"GET {target} HTTP/1.1", "Host: exit.test", f"Authorization: Bearer {token}", "", ""]
        self._request = "\r\n".join(lines).encode()
        self._open = ExitStack()
        self._connections = [self._open.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(CONNECTIONS)]
        for connection in self._connections:
            connection.settimeout(60)
            connection.connect(str(path))

    def ask(self, many: int) -> None:
        """So many on each connection."""
        for connection in self._connections:
            connection.sendall(self._request)
        for turn in range(many):
            for connection in self._connections:
                _answer(connection)
                if turn + 1 < many:
                    connection.sendall(self._request)

    def close(self) -> None:
        self._open.close()


def _answer(connection: socket.socket) -> bytes:
    received = b""
    while True:
        received += _more(connection)
        head, end, body = received.partition(b"\r\n\r\n")
        if not end:
            continue
        length = _LENGTH.search(head)
        if length is None or not head.startswith(b"HTTP/1.1 200"):
            raise AssertionError(received)
        while len(body) < int(length[1]):
            body += _more(connection)
        return body


def _more(connection: socket.socket) -> bytes:
    received = connection.recv(65536)
    if not received:
        raise ConnectionError("the server has hung up")
    return received
