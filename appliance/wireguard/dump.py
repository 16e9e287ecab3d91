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
from appliance.wireguard.tunnel import Comparison, Dump, PeerState, Prefix

if TYPE_CHECKING:
    from collections.abc import Iterator


class Room(NamedTuple):
    """How many peers, and allowed-ips of all of them together, a parser has memory for."""

    peers: int
    allowed_ips: int


FIRST_ROOM = Room(peers=256, allowed_ips=1024)
# The kernel holds no more than 2^20 peers: MAX_PEERS_PER_DEVICE in drivers/net/wireguard/messages.h.
MOST_ROOM = Room(peers=1 << 20, allowed_ips=1 << 22)

# struct wga_difference and struct wga_allowed_ip of native/appliance.cdef.h; appliance.h asserts their sizes.
_DIFFERENCE = struct.Struct("=32sQQqII")
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
    """Reads one dump after another and compares each with the one before. One thread at a time."""

    def __init__(self, family_id: int, first: Room = FIRST_ROOM, most: Room = MOST_ROOM) -> None:
        """`family_id`: as resolved for `wireguard`. `first`: the room to start with; `most`: where growing ends."""
        self._family_id = family_id
        self._most = most
        self._reading = Tables(first)
        self._before = Tables(Room(1, 1))
        self._differences = Differences()
        self._peers: dict[bytes, PeerState] = {}  # of `_before`
        self._mark = object()  # names that reading

    def begin(self, seq: int, port_id: int) -> None:
        """Expect the answer to the request with this sequence number and port id (0: any)."""
        lib.wga_dump_begin(self._reading.dump, self._family_id, seq, port_id)

    def feed(self, buffer: bytes | bytearray | memoryview, length: int) -> bool:
        """Read the first `length` bytes of `buffer`, one recv()'s worth of messages. True: the dump is whole."""
        if not 0 <= length <= len(buffer):
            raise ValueError(f"length {length} of a buffer of {len(buffer)}")
        with ffi.from_buffer("uint8_t[]", buffer) as data:
            result = lib.wga_dump_feed(self._reading.dump, data, length)
        if result < 0:
            raise self._failure(-result)
        return result == 1

    def result(self) -> Dump:
        """The dump, once `feed` has said True; for taking it once. Raises `MalformedDump` when a peer comes twice."""
        found = self._reading.dump
        if found.state != lib.WGA_DUMP_FINISHED:
            raise RuntimeError("the dump is not finished")
        if found.ifindex != self._before.dump.ifindex:
            # Another interface: all that is the same is so by chance.
            self._before.dump.peer_count = 0
            self._peers, self._mark = {}, object()
        changed = self._take_over()
        before, self._mark = self._mark, object()
        # Its memory is written anew by the next reading: whoever has the dump keeps what was made of it.
        self._before, self._reading = self._reading, self._before
        self._reading.make_room(self._before.room)
        return Dump(
            ifindex=found.ifindex,
            public_key=bytes(ffi.buffer(found.public_key)),
            listen_port=found.listen_port,
            peers=self._peers,
            compared=Comparison(self._mark, before, changed),
        )

    def _take_over(self) -> frozenset[bytes]:
        """Make objects of the peers that changed, and of no others. Returns whose they are."""
        peers, changed = dict(self._peers), set()
        for public_key, rx_bytes, tx_bytes, last_handshake_ns, what, place in self._differences.between(
            self._before, self._reading
        ):
            changed.add(public_key)
            if what & lib.WGA_GONE:
                del peers[public_key]
                continue
            if what & (lib.WGA_NEW | lib.WGA_ALLOWED_IPS):
                allowed_ips = self._reading.allowed_ips_of(place)
            else:
                allowed_ips = peers[public_key].allowed_ips
            peers[public_key] = PeerState(public_key, allowed_ips, rx_bytes, tx_bytes, last_handshake_ns)
        self._peers = peers
        return frozenset(changed)

    def _failure(self, error: int) -> Exception:
        if self._reading.dump.kernel_error:
            return OSError(error, os.strerror(error))
        if error == EINTR:
            return Interrupted()
        if error == ENOSPC:
            return self._grow()
        if error == EBADMSG:
            return MalformedDump("malformed dump")
        return RuntimeError("no dump is begun")

    def _grow(self) -> TunnelError:
        most, room = self._most, self._reading.more_room()
        if room.peers > most.peers or room.allowed_ips > most.allowed_ips:
            return TunnelError(f"the device holds more than {most.peers} peers or {most.allowed_ips} allowed-ips")
        self._reading.make_room(room)
        return OutOfRoom()


class Tables:
    """One reading's peers and allowed-ips, in C's memory."""

    def __init__(self, room: Room) -> None:
        self.dump = ffi.new("struct wga_dump *")
        self.room = Room(0, 0)
        self.make_room(room)

    def make_room(self, room: Room) -> None:
        """At least so much; what was read is gone where it is more than there was."""
        if room == self.room:
            return
        self.room = room
        # The C struct only points at the arrays: these attributes keep them alive.
        self._peers = ffi.new("struct wga_peer[]", room.peers)
        self._allowed_ips = ffi.new("struct wga_allowed_ip[]", room.allowed_ips)
        self.dump.peers = self._peers
        self.dump.peer_capacity = room.peers
        self.dump.allowed_ips = self._allowed_ips
        self.dump.allowed_ip_capacity = room.allowed_ips

    def more_room(self) -> Room:
        """Twice of what is full."""
        found = self.dump
        peers_full = found.peer_count == found.peer_capacity
        allowed_ips_full = found.allowed_ip_count == found.allowed_ip_capacity
        return Room(self.room.peers * (1 + peers_full), self.room.allowed_ips * (1 + allowed_ips_full))

    def allowed_ips_of(self, place: int) -> frozenset[Prefix]:
        peer = self.dump.peers[place]
        rows = ffi.buffer(self.dump.allowed_ips + peer.first_allowed_ip, peer.allowed_ip_count * _ALLOWED_IP.size)
        return frozenset(Prefix(address[:size], length) for address, size, length in _ALLOWED_IP.iter_unpack(rows))


class Differences:
    """Compares two readings, in memory of its own that grows as needed."""

    def __init__(self) -> None:
        self._index = ffi.new("struct wga_index *")
        # Clients choose their keys, and must not choose where in the index they stand.
        self._index.secret = struct.unpack("=QQ", os.urandom(16))
        self._room = 0
        self._make_room(64)

    def between(self, before: Tables, after: Tables) -> Iterator[tuple[bytes, int, int, int, int, int]]:
        """(public key, rx, tx, handshake, what, place) of each peer that is not as it was: struct wga_difference.

        Raises MalformedDump when a peer comes twice in `after`.
        """
        self._make_index(before.dump.peer_count, after.dump.peer_count)
        while (count := lib.wga_dump_compare(before.dump, after.dump, self._index, self._found, self._room)) == -ENOSPC:
            self._make_room(self._room * 2)
        if count == -EBADMSG:
            raise MalformedDump("malformed dump: a peer comes twice")
        if count < 0:
            raise RuntimeError(os.strerror(-count))
        return _DIFFERENCE.iter_unpack(ffi.buffer(self._found, count * _DIFFERENCE.size))

    def _make_room(self, room: int) -> None:
        self._room = room
        self._found = ffi.new("struct wga_difference[]", room)

    def _make_index(self, before: int, after: int) -> None:
        size = max(64, 1 << (2 * (before + after) - 1).bit_length()) if before + after else 64
        if self._index.size < size:
            self._slots = ffi.new("uint32_t[]", size)
            self._index.slots, self._index.size = self._slots, size
        if self._index.met_size < before:
            self._met = ffi.new("uint8_t[]", size)
            self._index.met, self._index.met_size = self._met, size
