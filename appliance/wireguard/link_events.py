"""Waiting for something to happen to one network interface or its addresses (rtnetlink multicast groups)."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from typing import TYPE_CHECKING, Self

from appliance.wireguard import linux
from appliance.wireguard.attributes import NLA_HEADER, NLMSG_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_BUFFER_SIZE = 64 * 1024


class LinkEvents:
    """What happened since it was opened is kept for the next `changed()`; the kernel's buffer is the queue."""

    def __init__(self, interface_name: str) -> None:
        self._name = interface_name
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, linux.NETLINK_ROUTE)
        self._socket.bind((0, linux.RTMGRP_LINK | linux.RTMGRP_IPV4_IFADDR | linux.RTMGRP_IPV6_IFADDR))

    async def changed(self) -> None:
        """Returns once the interface came, went or changed, or one of its addresses did. May return for less.

        For one task at a time.
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
        """Read all there is; whether any of it concerns the interface."""
        concerned = False
        while True:
            try:
                data = self._socket.recv(_BUFFER_SIZE)
            except BlockingIOError:
                return concerned
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                concerned = True  # events were lost: any of them may have been ours
            else:
                concerned = concerned or any(self._concerns(kind, payload) for kind, payload in _messages(data))

    def _concerns(self, kind: int, payload: bytes) -> bool:
        if kind in (linux.RTM_NEWLINK, linux.RTM_DELLINK):
            return _interface_name(payload) == self._name
        if kind in (linux.RTM_NEWADDR, linux.RTM_DELADDR):
            index: int = _IFADDRMSG.unpack_from(payload)[4]
            return index == self._index()
        return False

    def _index(self) -> int:
        try:
            return socket.if_nametoindex(self._name)
        except OSError:
            return 0  # no interface has it; its going was an event of its own


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= NLMSG_HEADER.size:
        length, kind, *_ = NLMSG_HEADER.unpack_from(data)
        if length < NLMSG_HEADER.size:
            return
        yield kind, data[NLMSG_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def _interface_name(payload: bytes) -> str:
    data = payload[_IFINFOMSG.size :]
    while len(data) >= NLA_HEADER.size:
        length, kind = NLA_HEADER.unpack_from(data)
        if length < NLA_HEADER.size:
            break
        if kind & linux.NLA_TYPE_MASK == linux.IFLA_IFNAME:
            return data[NLA_HEADER.size : length].rstrip(b"\0").decode()
        data = data[(length + 3) & ~3 :]
    return ""
