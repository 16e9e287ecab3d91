"""Parses the kernel's answer to WG_CMD_GET_DEVICE, from recv() buffers to a `Dump`; no sockets here.

    parser = DumpParser(family_id)
    parser.begin(seq, port_id)                # what the request carries
    while not parser.feed(buffer, nbytes): ...
    dump = parser.result()

`feed` raises one of these errors, and the dump must then be discarded:

- `DumpWasInterrupted`: the device changed under the dump. Ask again, a bounded number of times.
- `DumpCapacityExceeded`: there are more peers or allowed-ips than the tables hold; the next tables hold twice as many.
  Ask again: capacity is bounded, so this happens at most some twenty times in a parser's life.
- `MalformedDump`: the bytes are not what the protocol allows.
- `TunnelError`: the device has more peers or allowed-ips than the largest tables hold.
- `OSError`: the kernel refused, with its errno (ENODEV: no such interface).

After any of them the kernel may still be sending the rest, and a second dump on the same socket is refused (EBUSY)
until that is read: ask again on a new socket.
"""

from __future__ import annotations

import os
from errno import EBADMSG, EINTR, ENOSPC
from typing import TYPE_CHECKING

from appliance._native import ffi, lib
from appliance.domain.errors import MalformedDump
from appliance.network.netlink.dump import DumpCapacityExceeded, DumpWasInterrupted
from appliance.network.wireguard.dump_tables import INITIAL_CAPACITY, MAX_CAPACITY, DumpTables
from appliance.network.wireguard.tunnel import Dump

if TYPE_CHECKING:
    from appliance.network.wireguard.peer_table import PeerTable, TableCapacity


class DumpParser:
    """Reads one dump after another and compares each with the one before. One thread at a time."""

    def __init__(
        self, family_id: int, initial: TableCapacity = INITIAL_CAPACITY, maximum: TableCapacity = MAX_CAPACITY
    ) -> None:
        """`family_id`: as resolved for `wireguard`."""
        self._family_id = family_id
        self._tables = DumpTables(initial, maximum)
        self._reading: PeerTable | None = None

    def begin(self, seq: int, port_id: int) -> None:
        """Expects the answer to the request with this sequence number and port id (0: any)."""
        self._reading = self._tables.table()
        lib.wga_dump_begin(self._reading.dump, self._family_id, seq, port_id)

    def feed(self, buffer: bytes | bytearray | memoryview, length: int) -> bool:
        """Parses the first `length` bytes of `buffer`, the messages of one recv().

        Returns whether the dump is whole.
        """
        if not 0 <= length <= len(buffer):
            raise ValueError(f"length {length} of a buffer of {len(buffer)}")
        if self._reading is None:
            raise RuntimeError("no dump is begun")
        with ffi.from_buffer("uint8_t[]", buffer) as data:
            result = lib.wga_dump_feed(self._reading.dump, data, length)
        if result < 0:
            raise self._failure(self._reading, -result)
        return result == 1

    def result(self) -> Dump:
        """Returns the dump, once, after `feed` has returned True. Raises MalformedDump if a peer appears twice."""
        table = self._reading
        if table is None or table.dump.state != lib.WGA_DUMP_FINISHED:
            raise RuntimeError("the dump is not finished")
        self._reading = None
        parsed = table.dump
        peers = self._tables.peers(table)
        return Dump(
            ifindex=parsed.ifindex,
            public_key=bytes(ffi.buffer(parsed.public_key)),
            listen_port=parsed.listen_port,
            peers=peers,
            compared=peers,
        )

    def _failure(self, reading: PeerTable, error: int) -> Exception:
        if reading.dump.kernel_error:
            return OSError(error, os.strerror(error))
        if error == EINTR:
            return DumpWasInterrupted()
        if error == ENOSPC:
            self._tables.grow(reading)
            return DumpCapacityExceeded()
        if error == EBADMSG:
            return MalformedDump("malformed dump")
        return RuntimeError("no dump is begun")
