"""Asks rtnetlink: sends one request and waits for its answer. The kernel answers at once."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

from appliance.network.netlink import constants
from appliance.network.netlink.codec import NLMSG_HEADER, Event, messages

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER_TIMEOUT_S = 5.0
DUMP_ATTEMPTS = 3
_BUFFER_SIZE = 64 * 1024


def request(kind: int, flags: int, body: bytes) -> None:
    """Makes a change. Raises OSError with the kernel's errno."""
    with _rtnetlink() as kernel:
        _send(kernel, kind, flags | constants.NLM_F_ACK, body)
        for answer in messages(kernel.recv(_BUFFER_SIZE)):
            if answer.kind == constants.NLMSG_ERROR:
                _raise_unless_zero(answer)


def dump(kind: int, body: bytes) -> list[Event]:
    """Lists what there is of a kind. Raises OSError with the kernel's errno."""
    for _ in range(DUMP_ATTEMPTS):
        listed = _dump_once(kind, body)
        if not any(each.flags & constants.NLM_F_DUMP_INTR for each in listed):
            break
    return listed


def _dump_once(kind: int, body: bytes) -> list[Event]:
    listed = list[Event]()
    with _rtnetlink() as kernel:
        _send(kernel, kind, constants.NLM_F_DUMP, body)
        while True:
            for answer in messages(kernel.recv(_BUFFER_SIZE)):
                if answer.kind == constants.NLMSG_DONE:
                    return listed
                if answer.kind == constants.NLMSG_ERROR:
                    _raise_unless_zero(answer)
                listed.append(answer)


@contextmanager
def _rtnetlink() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, constants.NETLINK_ROUTE) as kernel:
        kernel.settimeout(ANSWER_TIMEOUT_S)
        yield kernel


def _send(kernel: socket.socket, kind: int, flags: int, body: bytes) -> None:
    header = NLMSG_HEADER.pack(NLMSG_HEADER.size + len(body), kind, flags | constants.NLM_F_REQUEST, 1, 0)
    kernel.sendto(header + body, (0, 0))


def _raise_unless_zero(answer: Event) -> None:
    """Raises the errno, with which struct nlmsgerr begins, negated."""
    (negated,) = struct.unpack_from("=i", answer.payload)
    if negated:
        raise OSError(-negated, os.strerror(-negated))
