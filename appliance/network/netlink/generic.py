"""Sends requests over one generic-netlink socket and reads their acknowledgements, or a dump. Blocking.

Facts from linux/netlink.h, net/netlink/af_netlink.c and net/netlink/genetlink.c: a request with NLM_F_ACK is
answered by one NLMSG_ERROR (errno 0 = done), with a text in attributes when NETLINK_EXT_ACK is set; a socket
that was ever read with a large buffer gets its dumps in pieces of up to 32 KiB; the kernel's port id is 0.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, TypeVar

from appliance.domain.errors import DumpInterrupted, TunnelError
from appliance.network.netlink import constants
from appliance.network.netlink.codec import GENLMSG_HEADER, NLMSG_HEADER, attribute, attributes, message, messages
from appliance.network.netlink.dump import DumpCapacityExceeded, DumpWasInterrupted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.netlink.codec import Event
    from appliance.network.netlink.dump import DumpReader

Result = TypeVar("Result")

RECEIVE_TIMEOUT_S = 5
BUFFER_SIZE = 128 * 1024
DUMP_ATTEMPTS = 6  # one, and five retries
# An answer to one request is one datagram; more come only when an earlier request was abandoned.
STRAY_DATAGRAMS = 1000

_TIMEVAL = struct.Struct("@ll")
_ERROR = struct.Struct("=iI")  # errno negated, and the length out of the request's header


class NetlinkError(Exception):
    """Says that the kernel answered a request with an errno. `detail` is its own words, or nothing."""

    def __init__(self, number: int, detail: str = "") -> None:
        super().__init__(number, detail)
        self.number = number
        self.detail = detail

    def __str__(self) -> str:
        name = errno.errorcode.get(self.number, str(self.number))
        return f"{name} ({self.detail or os.strerror(self.number)})"


class GenericNetlink:
    """Asks one generic-netlink family; for one thread at a time.

    The socket is opened when needed. A request that did not run to its end leaves it closed, so that no
    answer of an abandoned request can be taken for the next one's.
    """

    def __init__(self, family: str, version: int) -> None:
        self._family = family
        self._version = version
        self._family_id: int | None = None
        self._socket: socket.socket | None = None
        self._seq = 0
        self._buffer = memoryview(bytearray(BUFFER_SIZE))
        self.dump_retries = 0

    def family_id(self) -> int:
        """Returns the number the kernel gave the family. Looking it up loads the family's module where it can be.

        Raises NetlinkError(ENOENT) when this kernel does not have it, or OSError from the socket.
        """
        if self._family_id is None:
            name = attribute(constants.CTRL_ATTR_FAMILY_NAME, self._family.encode() + b"\0")
            self._family_id = self._ask(
                constants.GENL_ID_CTRL, constants.CTRL_CMD_GETFAMILY, constants.CTRL_VERSION, name
            )
        return self._family_id

    def request(self, command: int, body: bytes) -> None:
        """Sends one request and waits until the kernel has acknowledged it.

        Raises NetlinkError; TunnelError where the answer makes no sense; or OSError from the socket.
        """
        self._ask(self.family_id(), command, self._version, body)

    def dump(self, reader: DumpReader[Result], command: int, body: bytes) -> Result:
        """Requests a dump until `reader` has read a consistent one, at most DUMP_ATTEMPTS times.

        Raises DumpInterrupted when it is interrupted each time; NetlinkError; TunnelError from the reader; or OSError
        from the socket.
        """
        family_id = self.family_id()
        interruptions = 0
        while interruptions < DUMP_ATTEMPTS:
            try:
                return self._dump_once(reader, family_id, command, body)
            except DumpCapacityExceeded:
                continue  # the reader bounds these itself
            except DumpWasInterrupted:
                interruptions += 1
                self.dump_retries += 1
        raise DumpInterrupted(f"the device kept changing while it was read, {DUMP_ATTEMPTS} times in a row")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, kind: int, command: int, version: int, body: bytes) -> int:
        """Returns the family id if the answer carries one, else 0."""
        try:
            seq = self._send(kind, constants.NLM_F_ACK, command, version, body)
            return self._await_ack(seq)
        except NetlinkError:
            raise
        except BaseException:
            self.close()
            raise

    def _await_ack(self, seq: int) -> int:
        family_id = 0
        for _ in range(STRAY_DATAGRAMS):
            for answer in self._answers(seq):
                if answer.kind == constants.GENL_ID_CTRL:
                    family_id = _family_id(answer.payload)
                elif answer.kind == constants.NLMSG_ERROR:
                    _raise_unless_zero(answer)
                    return family_id
        raise TunnelError("no acknowledgement among the kernel's answers")

    def _dump_once(self, reader: DumpReader[Result], family_id: int, command: int, body: bytes) -> Result:
        finished = False
        try:
            seq = self._send(family_id, constants.NLM_F_DUMP, command, self._version, body)
            reader.begin(seq, self._port_id())
            while not finished:
                finished = self._feed(reader, self._receive())
        finally:
            if not finished:
                self.close()
        return reader.result()

    def _feed(self, reader: DumpReader[object], nbytes: int) -> bool:
        try:
            return reader.feed(self._buffer, nbytes)
        except OSError as error:
            raise NetlinkError(error.errno or errno.EIO) from error

    def _send(self, kind: int, flags: int, command: int, version: int, body: bytes) -> int:
        self._seq = self._seq % 0xFFFFFFFF + 1
        data = message(kind, flags, self._seq, command, version, body)
        self._open().sendto(data, (0, 0))
        return self._seq

    def _open(self) -> socket.socket:
        if self._socket is None:
            opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, constants.NETLINK_GENERIC)
            try:
                # The kernel's own timeout: Python's would put a poll() before each recv().
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(RECEIVE_TIMEOUT_S, 0))
                # Errors then come with a text, and without a copy of the request (it can hold a private key).
                opened.setsockopt(constants.SOL_NETLINK, constants.NETLINK_EXT_ACK, 1)
                opened.setsockopt(constants.SOL_NETLINK, constants.NETLINK_CAP_ACK, 1)
                opened.bind((0, 0))
            except BaseException:
                opened.close()
                raise
            self._socket = opened
        return self._socket

    def _port_id(self) -> int:
        port_id: int = self._open().getsockname()[0]
        return port_id

    def _receive(self) -> int:
        """Receives the next datagram from the kernel into the buffer and returns its size in bytes.

        Raises TimeoutError; TunnelError where the datagram was cut off or only other processes send; or OSError.
        """
        for _ in range(STRAY_DATAGRAMS):
            try:
                nbytes, (port_id, _groups) = self._open().recvfrom_into(self._buffer, 0, socket.MSG_TRUNC)
            except BlockingIOError as error:
                raise TimeoutError(f"no answer from the kernel within {RECEIVE_TIMEOUT_S} s") from error
            if nbytes > len(self._buffer):
                raise TunnelError(f"a netlink answer of {nbytes} bytes was cut off")
            if port_id == 0:
                return nbytes
        raise TunnelError("other processes flood the netlink socket")

    def _answers(self, seq: int) -> Iterator[Event]:
        """Reads the next datagram's messages that answer the request `seq`.

        Raises TunnelError where one has a wrong length.
        """
        data = bytes(self._buffer[: self._receive()])
        return (each for each in messages(data, strict=True) if each.sequence == seq)


def _family_id(payload: bytes) -> int:
    for kind, value in attributes(payload[GENLMSG_HEADER.size :], strict=True):
        if kind == constants.CTRL_ATTR_FAMILY_ID:
            return int.from_bytes(value, sys.byteorder)
    raise TunnelError("the kernel named no generic-netlink family id")


def _raise_unless_zero(answer: Event) -> None:
    """Raises NetlinkError with the errno of an answer, unless it is 0.

    struct nlmsgerr: the errno, negated; the request's header (its payload too unless CAPPED); attributes.
    """
    negated, request_length = _ERROR.unpack_from(answer.payload)
    if negated == 0:
        return
    detail = ""
    if answer.flags & constants.NLM_F_ACK_TLVS:
        copied = NLMSG_HEADER.size if answer.flags & constants.NLM_F_CAPPED else (request_length + 3) & ~3
        for kind, value in attributes(answer.payload[4 + copied :], strict=True):
            if kind == constants.NLMSGERR_ATTR_MSG:
                detail = value.rstrip(b"\0").decode(errors="replace")
    raise NetlinkError(-negated, detail)
