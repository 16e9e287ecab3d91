"""Reads the sockets that receive what they have not asked for: listening TCP, unconnected UDP. Blocking.

The kernel selects them (sock_diag(7)), so that a host's many connections cost nothing. Where it lacks the module for a
protocol, as small kernels and containers of such hosts do, procfs is read.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.network.netlink import constants
from appliance.network.netlink.codec import NLMSG_HEADER, messages

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER_TIMEOUT_S = 5.0
PROC_NET = Path("/proc/thread-self/net")
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
_BUFFER_SIZE = 64 * 1024
_STATES = {TCP: constants.TCP_LISTEN, UDP: constants.TCP_CLOSE}
_TABLES: dict[tuple[int, int], str] = {
    (TCP, socket.AF_INET): "tcp",
    (TCP, socket.AF_INET6): "tcp6",
    (UDP, socket.AF_INET): "udp",
    (UDP, socket.AF_INET6): "udp6",
}
# struct inet_diag_req_v2: family, protocol, extensions, padding, states; then inet_diag_sockid, which a dump ignores.
_REQUEST = struct.Struct("=BBBBI48x")
# struct inet_diag_msg: family, state, timer, retransmits; of inet_diag_sockid: ports, addresses, interface, cookie.
_SOCKET = struct.Struct("!BBBBHH36xQ")
_ERROR = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """Identifies a socket. `identity`: no other socket of its protocol and port has it while this one exists."""

    protocol: int
    port: int
    identity: int


def listeners() -> frozenset[ListeningSocket]:
    """Reads the sockets of this network namespace, of both IP versions. Raises OSError."""
    found = (listener for protocol, family in _TABLES for listener in _of(protocol, family))
    return frozenset(listener for listener in found if listener.port)  # 0: not bound


def _of(protocol: int, family: int) -> list[ListeningSocket]:
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, constants.NETLINK_SOCK_DIAG) as kernel:
            kernel.settimeout(ANSWER_TIMEOUT_S)
            return list(_dump(kernel, protocol, family))
    except TimeoutError:
        raise
    except OSError:
        return _of_procfs(protocol, family)


def _dump(kernel: socket.socket, protocol: int, family: int) -> Iterator[ListeningSocket]:
    request = _REQUEST.pack(family, protocol, 0, 0, 1 << _STATES[protocol])
    flags = constants.NLM_F_REQUEST | constants.NLM_F_DUMP
    length = NLMSG_HEADER.size + len(request)
    kernel.sendto(NLMSG_HEADER.pack(length, constants.SOCK_DIAG_BY_FAMILY, flags, 0, 0) + request, (0, 0))
    while True:
        for event in messages(kernel.recv(_BUFFER_SIZE)):
            if event.kind in (constants.NLMSG_DONE, constants.NLMSG_ERROR):
                # Both begin with an errno, negated: a missing module is told at the end of an empty dump.
                (negated,) = _ERROR.unpack_from(event.payload)
                if negated < 0:
                    raise OSError(-negated, os.strerror(-negated))
                return
            yield parse(event.payload, protocol)


def parse(payload: bytes, protocol: int) -> ListeningSocket:
    """Parses a struct inet_diag_msg."""
    _, _, _, _, port, _, cookie = _SOCKET.unpack_from(payload)
    return ListeningSocket(protocol, port, cookie)


def _of_procfs(protocol: int, family: int) -> list[ListeningSocket]:
    table = PROC_NET / _TABLES[protocol, family]
    try:
        with table.open(encoding="ascii") as lines:
            next(lines)
            return list(parse_procfs(lines, protocol))
    except FileNotFoundError:
        if family == socket.AF_INET6:
            return []  # this kernel has no IPv6
        raise


def parse_procfs(lines: Iterator[str], protocol: int) -> Iterator[ListeningSocket]:
    """Parses the lines of /proc/net/tcp and the like, see proc(5).

    Those of listening TCP sockets come before all others (net/ipv4/tcp_ipv4.c, tcp_get_idx): the rest is not read.
    """
    for fields in map(str.split, lines):
        local, state, inode = fields[1], int(fields[3], 16), int(fields[9])
        if state == _STATES[protocol]:
            yield ListeningSocket(protocol, int(local.rpartition(":")[2], 16), inode)
        elif protocol == TCP:
            return
