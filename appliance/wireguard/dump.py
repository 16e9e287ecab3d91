"""The kernel's answer to WG_CMD_GET_DEVICE, from recv() buffers to a `Dump`. No sockets in here.

    parser = DumpParser(family_id)
    parser.begin(seq, port_id)                # what the request carries
    while not parser.feed(buffer, nbytes): ...
    dump = parser.result()

`feed` raises, and the dump begun is then worth nothing:

- `Interrupted`: the device changed under the dump. Ask again, a bounded number of times.
- `OutOfRoom`: there are more peers or allowed-ips than there was room for; the room is doubled. Ask again: since
  the room has a bound, this happens at most some twenty times in a parser's life.
- `MalformedDump`: the bytes are not what the protocol allows.
- `TunnelError`: the device holds more than the parser ever makes room for.
- `OSError`: the kernel refused, with its errno (ENODEV: no such interface).

After any of them the kernel may still be sending the rest, and a second dump on the same socket is refused (EBUSY)
until that is read: ask again on a new socket.
"""

from __future__ import annotations

import os
import struct
from errno import EBADMSG, EINTR, ENOSPC
from typing import TYPE_CHECKING, NamedTuple

from appliance._native import ffi, lib
from appliance.errors import MalformedDump, TunnelError
from appliance.wireguard.tunnel import Dump, PeerState, Prefix

if TYPE_CHECKING:
    from collections.abc import Iterator


class Room(NamedTuple):
    """How many peers, and allowed-ips of all of them together, a parser has memory for."""

    peers: int
    allowed_ips: int


FIRST_ROOM = Room(peers=256, allowed_ips=1024)
# The kernel holds no more than 2^20 peers: MAX_PEERS_PER_DEVICE in drivers/net/wireguard/messages.h.
MOST_ROOM = Room(peers=1 << 20, allowed_ips=1 << 22)

# struct wga_peer and struct wga_allowed_ip of native/appliance.cdef.h; appliance.h asserts their sizes.
_PEER = struct.Struct("=32sQQqII")
_ALLOWED_IP = struct.Struct("=16sBB")


class Interrupted(TunnelError):
    """NLM_F_DUMP_INTR: the device changed under the dump. Ask again."""

    def __init__(self) -> None:
        super().__init__("the device changed while it was read")


class OutOfRoom(TunnelError):
    """The device holds more than there was room for; there is more room now. Ask again."""

    def __init__(self) -> None:
        super().__init__("the device holds more than there was room for")


class DumpParser:
    """Reads one dump after another, keeping the room it has grown. One thread at a time."""

    def __init__(self, family_id: int, first: Room = FIRST_ROOM, most: Room = MOST_ROOM) -> None:
        """`family_id`: as resolved for `wireguard`. `first`: the room to start with; `most`: where growing ends."""
        self._family_id = family_id
        self._most = most
        self._dump = ffi.new("struct wga_dump *")
        self._make_room(first)

    def begin(self, seq: int, port_id: int) -> None:
        """Expect the answer to the request with this sequence number and port id (0: any)."""
        lib.wga_dump_begin(self._dump, self._family_id, seq, port_id)

    def feed(self, buffer: bytes | bytearray | memoryview, length: int) -> bool:
        """Read the first `length` bytes of `buffer`, one recv()'s worth of messages. True: the dump is whole."""
        if not 0 <= length <= len(buffer):
            raise ValueError(f"length {length} of a buffer of {len(buffer)}")
        with ffi.from_buffer("uint8_t[]", buffer) as data:
            result = lib.wga_dump_feed(self._dump, data, length)
        if result < 0:
            raise self._failure(-result)
        return result == 1

    def result(self) -> Dump:
        """The dump, once `feed` has said True. Raises `MalformedDump` when a peer comes twice."""
        found = self._dump
        if found.state != lib.WGA_DUMP_FINISHED:
            raise RuntimeError("the dump is not finished")
        peers = {peer.public_key: peer for peer in self._peer_states()}
        if len(peers) != found.peer_count:
            raise MalformedDump("malformed dump: a peer comes twice")
        return Dump(
            ifindex=found.ifindex,
            public_key=bytes(ffi.buffer(found.public_key)),
            listen_port=found.listen_port,
            peers=peers,
        )

    def _peer_states(self) -> Iterator[PeerState]:
        found = self._dump
        prefixes = [
            Prefix(address[:size], length)
            for address, size, length in _ALLOWED_IP.iter_unpack(
                ffi.buffer(found.allowed_ips, found.allowed_ip_count * _ALLOWED_IP.size)
            )
        ]
        rows = _PEER.iter_unpack(ffi.buffer(found.peers, found.peer_count * _PEER.size))
        for public_key, rx_bytes, tx_bytes, last_handshake_ns, first, count in rows:
            yield PeerState(
                public_key=public_key,
                allowed_ips=frozenset(prefixes[first : first + count]),
                rx_bytes=rx_bytes,
                tx_bytes=tx_bytes,
                last_handshake_ns=last_handshake_ns,
            )

    def _failure(self, error: int) -> Exception:
        if self._dump.kernel_error:
            return OSError(error, os.strerror(error))
        if error == EINTR:
            return Interrupted()
        if error == ENOSPC:
            return self._grow()
        if error == EBADMSG:
            return MalformedDump("malformed dump")
        return RuntimeError("no dump is begun")

    def _grow(self) -> TunnelError:
        found, most = self._dump, self._most
        peers_full = found.peer_count == found.peer_capacity
        allowed_ips_full = found.allowed_ip_count == found.allowed_ip_capacity
        room = Room(
            peers=found.peer_capacity * (2 if peers_full else 1),
            allowed_ips=found.allowed_ip_capacity * (2 if allowed_ips_full else 1),
        )
        if room.peers > most.peers or room.allowed_ips > most.allowed_ips:
            return TunnelError(f"the device holds more than {most.peers} peers or {most.allowed_ips} allowed-ips")
        self._make_room(room)
        return OutOfRoom()

    def _make_room(self, room: Room) -> None:
        # The C struct only points at the arrays: these attributes keep them alive.
        self._peers = ffi.new("struct wga_peer[]", room.peers)
        self._allowed_ips = ffi.new("struct wga_allowed_ip[]", room.allowed_ips)
        self._dump.peers = self._peers
        self._dump.peer_capacity = room.peers
        self._dump.allowed_ips = self._allowed_ips
        self._dump.allowed_ip_capacity = room.allowed_ips
