"""Servers on the exit's host, which its clients reach or not."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support import netns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.tunnel.namespace import Namespace


class UdpServer:
    """On all addresses of both IP versions."""

    def __init__(self, listener: socket.socket) -> None:
        self._socket = listener
        self._received: list[bytes] = []

    def received(self) -> list[bytes]:
        while True:
            try:
                self._received.append(self._socket.recv(2048))
            except BlockingIOError:
                return self._received


@contextmanager
def udp_server(space: Namespace, port: int) -> Iterator[UdpServer]:
    with netns.Namespace(space.name).entered():
        listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", port))
        listener.setblocking(False)
        yield UdpServer(listener)


@contextmanager
def tcp_servers(space: Namespace, address: str, *ports: int) -> Iterator[None]:
    """They listen; the kernel answers a SYN for them."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.Namespace(space.name).entered():
        listeners = [socket.create_server((address, port), family=family) for port in ports]
    try:
        yield
    finally:
        for listener in listeners:
            listener.close()
