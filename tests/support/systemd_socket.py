"""What a service tells systemd, received as systemd does: a datagram socket."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class SystemdSocket:
    """`messages`: all that was received so far, oldest first."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._messages: list[Mapping[str, str]] = []

    @property
    def messages(self) -> list[Mapping[str, str]]:
        while True:
            try:
                text = self._listening.recv(65536).decode()
            except BlockingIOError:
                return self._messages
            self._messages.append(dict(line.split("=", 1) for line in text.splitlines()))

    def all(self, name: str) -> list[str]:
        """What was said of one variable, oldest first."""
        return [message[name] for message in self.messages if name in message]

    @property
    def status(self) -> str:
        """What `systemctl status` would show."""
        return (self.all("STATUS") or [""])[-1]


@contextmanager
def systemd_socket(address: Path | str) -> Iterator[SystemdSocket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.setblocking(False)
        listening.bind(str(address))
        yield SystemdSocket(listening)
