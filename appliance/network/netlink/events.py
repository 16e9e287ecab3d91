"""Waits for what the kernel tells a netlink multicast group."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING, Self

from appliance.network.netlink import constants
from appliance.network.netlink.codec import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.network.netlink.codec import Event

_BUFFER_SIZE = 64 * 1024
# The kernel tells of every rule and set element of a table that is replaced: some 200 KiB for the exit's own, twice.
_KEPT_BYTES = 8 * 1024 * 1024


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
            _enlarge(self._socket)
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


def _enlarge(receiver: socket.socket) -> None:
    """Has the kernel keep more events than by its default; as many as it allows where that needs a privilege."""
    try:
        receiver.setsockopt(socket.SOL_SOCKET, constants.SO_RCVBUFFORCE, _KEPT_BYTES)
    except PermissionError:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KEPT_BYTES)
