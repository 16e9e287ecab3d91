"""Waiting for what the kernel tells a netlink multicast group."""

from __future__ import annotations

import asyncio
import errno
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from appliance.network.netlink.constants import NLA_TYPE_MASK
from appliance.network.wireguard.encode import NLA_HEADER, NLMSG_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BUFFER_SIZE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Event:
    """`port`: the netlink port of whoever caused it; 0: the kernel itself."""

    kind: int
    port: int
    payload: bytes


class NetlinkEvents:
    """What happened since it was opened is kept for the next `happened()`; the kernel's buffer is the queue.

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
        """Returns once something that concerns happened, or where events were lost. For one task at a time."""
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
        """Read all there is; whether any of it concerns. Every event is asked about."""
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


def messages(data: bytes) -> Iterator[Event]:
    """The messages of one datagram."""
    while len(data) >= NLMSG_HEADER.size:
        length, kind, _flags, _sequence, port = NLMSG_HEADER.unpack_from(data)
        if length < NLMSG_HEADER.size:
            return
        yield Event(kind, port, data[NLMSG_HEADER.size : length])
        data = data[(length + 3) & ~3 :]


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of each; what is cut short ends it."""
    while len(data) >= NLA_HEADER.size:
        length, kind = NLA_HEADER.unpack_from(data)
        if not NLA_HEADER.size <= length <= len(data):
            return
        yield kind & NLA_TYPE_MASK, data[NLA_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def text_attribute(payload: bytes, header_size: int, wanted: int) -> str:
    """The text of one attribute behind a header of this size; empty where it is not there."""
    texts = (value for kind, value in attributes(payload[header_size:]) if kind == wanted)
    return next(texts, b"").rstrip(b"\0").decode("utf-8", "replace")
