"""Asks the kernel about links, addresses and routes over one rtnetlink socket. Blocking.

Read here and not by pyroute2 what each whole tick reads: an IPRoute costs some milliseconds, a question here some
microseconds.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from appliance.network.netlink import constants
from appliance.network.netlink.codec import NLMSG_HEADER, messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.netlink.codec import Event

ANSWER_TIMEOUT_S = 5.0
DUMP_ATTEMPTS = 4
_BUFFER_SIZE = 64 * 1024
_ERROR = struct.Struct("=i")  # struct nlmsgerr begins with the errno, negated


class RoutingSocket:
    """Sends one request at a time and reads its answer."""

    def __init__(self, kernel: socket.socket) -> None:
        self._kernel = kernel
        self._sequence = 0

    def ask(self, kind: int, body: bytes) -> bytes:
        """Returns the payload of the answer. Raises OSError with the kernel's errno."""
        self._send(kind, 0, body)
        return next(event.payload for event in self._answers() if event.kind >= constants.NLMSG_MIN_TYPE)

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Returns the payloads of all objects of a kind. Raises OSError with the kernel's errno.

        A dump under which they changed is taken again, a few times; a further change is an event of its own.
        """
        for _ in range(DUMP_ATTEMPTS):
            self._send(kind, constants.NLM_F_DUMP, body)
            found = list(self._until_done())
            if not any(event.flags & constants.NLM_F_DUMP_INTR for event in found):
                break
        return [event.payload for event in found]

    def change(self, kind: int, flags: int, body: bytes) -> None:
        """Makes a change. Raises OSError with the kernel's errno."""
        self._send(kind, flags | constants.NLM_F_ACK, body)
        next(self._answers())

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        length = NLMSG_HEADER.size + len(body)
        header = NLMSG_HEADER.pack(length, kind, flags | constants.NLM_F_REQUEST, self._sequence, 0)
        self._kernel.sendto(header + body, (0, 0))

    def _until_done(self) -> Iterator[Event]:
        for event in self._answers():
            if event.kind == constants.NLMSG_DONE:
                return
            yield event

    def _answers(self) -> Iterator[Event]:
        while True:
            data, (port, _) = self._kernel.recvfrom(_BUFFER_SIZE)
            for event in messages(data) if port == 0 else ():
                if event.sequence != self._sequence:
                    continue
                if event.kind == constants.NLMSG_ERROR:
                    (negated,) = _ERROR.unpack_from(event.payload)
                    if negated:
                        raise OSError(-negated, os.strerror(-negated))
                yield event


@contextmanager
def routing_socket(*, strict: bool = False) -> Iterator[RoutingSocket]:
    """Opens a socket in this thread's network namespace. Raises OSError.

    `strict`: the kernel gives only what a dump's request asks for; one before Linux 4.20 gives all.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, constants.NETLINK_ROUTE) as kernel:
        kernel.settimeout(ANSWER_TIMEOUT_S)
        kernel.bind((0, 0))
        if strict:
            with suppress(OSError):
                kernel.setsockopt(constants.SOL_NETLINK, constants.NETLINK_GET_STRICT_CHK, 1)
        yield RoutingSocket(kernel)
