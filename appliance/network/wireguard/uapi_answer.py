"""Parses the answers of wireguard-go's configuration protocol, from received pieces to a `Dump`; no sockets here.

    parser = AnswerParser()
    parser.begin()
    while not parser.feed(stream.recv_into(parser.room())): ...
    if not parser.device_error:
        dump = parser.dump(ifindex)

`feed` raises MalformedDump if the bytes are not what the protocol allows, and TunnelError if the device has more peers
or allowed-ips than the largest tables hold; the answer must then be discarded.
"""

from __future__ import annotations

import os
from errno import EBADMSG, ENOSPC
from typing import TYPE_CHECKING

from appliance._native import ffi, lib
from appliance.domain.errors import MalformedDump
from appliance.network.wireguard import keys
from appliance.network.wireguard.dump_tables import INITIAL_CAPACITY, MAX_CAPACITY, DumpTables
from appliance.network.wireguard.tunnel import Dump

if TYPE_CHECKING:
    from appliance.network.wireguard.peer_table import PeerTable, TableCapacity

# What one piece and the start of a line before it fill at most; a line has some 80 bytes.
BUFFER_SIZE = 256 * 1024


class AnswerParser:
    """Reads one answer after another and compares each dump with the one before. One thread at a time."""

    def __init__(self, initial: TableCapacity = INITIAL_CAPACITY, maximum: TableCapacity = MAX_CAPACITY) -> None:
        self._tables = DumpTables(initial, maximum)
        self._reading: PeerTable | None = None
        self._uapi = ffi.new("struct wga_uapi *")
        self._buffer = memoryview(b"")
        self._public_key = b""  # the device's; of its private key nothing is kept
        self._waiting = 0  # bytes at the start of the buffer that are no whole line yet

    def begin(self) -> None:
        """Expects the answer to one request."""
        if self._reading is None:
            self._reading = self._tables.table()
        lib.wga_uapi_begin(self._uapi, self._reading.dump)
        # A new one for each answer: the private key is in it, and goes with it.
        self._buffer, self._waiting = memoryview(bytearray(BUFFER_SIZE)), 0

    def room(self) -> memoryview:
        """Returns the memory to receive the next piece into; it is never empty."""
        return self._buffer[self._waiting :]

    def feed(self, length: int) -> bool:
        """Parses the first `length` bytes of `room()`. Returns whether the answer is whole."""
        if not 0 <= length <= len(self._buffer) - self._waiting:
            raise ValueError(f"length {length} of room for {len(self._buffer) - self._waiting}")
        try:
            whole = self._take(self._waiting + length)
            if whole:
                self._public_key = self._derived_public_key()
        except Exception:
            self._forget()
            raise
        if whole:
            self._forget()
        return whole

    def _take(self, end: int) -> bool:
        """Parses the buffer's first bytes, and moves what is no whole line to its start."""
        start, whole = self._parse(end)
        self._waiting = end - start
        self._buffer[: self._waiting] = self._buffer[start:end]
        if self._waiting == len(self._buffer):
            raise MalformedDump(f"malformed answer: a line of more than {self._waiting} bytes")
        return whole

    def _parse(self, end: int) -> tuple[int, bool]:
        """Parses the whole lines of the buffer's first bytes. Returns where they end, and whether the answer does."""
        if self._reading is None:
            raise RuntimeError("no answer is begun")
        start = 0
        while True:
            with ffi.from_buffer("uint8_t[]", self._buffer[start:end]) as data:
                result = lib.wga_uapi_feed(self._uapi, data, end - start)
            start += self._uapi.consumed
            if result >= 0:
                return start, result == 1
            if result != -ENOSPC:
                raise self._failure(-result)
            self._reading.grow(self._tables.grow(self._reading))

    def _derived_public_key(self) -> bytes:
        private_key = bytes(ffi.buffer(self._uapi.private_key))
        return keys.public_key(private_key) if self._uapi.has_private_key else bytes(len(private_key))

    def _forget(self) -> None:
        """Gives up the answer, and clears the private key that was in it."""
        self._buffer, self._waiting = memoryview(b""), 0
        private_key = ffi.buffer(self._uapi.private_key)
        private_key[:] = bytes(len(private_key))

    @property
    def device_error(self) -> int:
        """Returns the errno that the device answered with, positive; 0 if it did as asked."""
        return self._uapi.device_error

    @property
    def listen_port(self) -> int:
        """Returns the port from the answer to `get=1`; 0 while the device has none."""
        return 0 if self._reading is None else self._reading.dump.listen_port

    def dump(self, ifindex: int) -> Dump:
        """Returns the dump, once, from the whole answer to `get=1`. Raises MalformedDump if a peer appears twice."""
        table = self._reading
        if table is None or table.dump.state != lib.WGA_DUMP_FINISHED or self.device_error:
            raise RuntimeError("the dump is not finished")
        self._reading = None
        peers = self._tables.peers(table)
        return Dump(
            ifindex=ifindex,
            public_key=self._public_key,
            listen_port=table.dump.listen_port,
            peers=peers,
            compared=peers,
        )

    def _failure(self, error: int) -> Exception:
        if error == EBADMSG:
            return MalformedDump(f"malformed answer: {ffi.string(self._uapi.fault).decode('ascii')}")
        return RuntimeError(os.strerror(error))
