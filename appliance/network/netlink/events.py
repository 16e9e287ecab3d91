"""Waits for what the kernel tells a netlink multicast group."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING, Self

from appliance.network.netlink.codec import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.network.netlink.codec import Event

_BUFFER_SIZE = 64 * 1024


class NetlinkEvents:
    """Receives the events of multicast groups. The kernel's buffer keeps what comes between two calls of `happened()`.

    `concerns` says whether an event is one to wait for; `lost` is called where events were lost, of which any may
    have been one.
    """

    def __init__(
        self, protocol: int, groups: int, concerns: Callable[[Event], bool], lost: Callable[[], None] = lambda: None
    ) -> None:
        self.concerns = concerns
        self.lost = lost
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        try:
            self._socket.bind((0, groups))
        except BaseException:
            self._socket.close()
            raise

    async def happened(self) -> None:
        """Returns once an event that concerns came, or events were lost. For one task at a time.

        Raises OSError from the socket.
        """
        while True:
            await self._readable()
            if self._drain():
                return

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._socket, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._socket)

    def _drain(self) -> bool:
        """Reads all there is and returns whether any of it concerns. Every event is asked about."""
        concerned = False
        while True:
            try:
                data = self._socket.recv(_BUFFER_SIZE)
            except BlockingIOError:
                return concerned
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.lost()
                concerned = True
            else:
                for event in messages(data):
                    concerned = self.concerns(event) or concerned
