"""Keeps the peers of one dump in C memory; creates Python objects for peers only on access."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from errno import EBADMSG
from typing import TYPE_CHECKING, NamedTuple
from weakref import ref

from appliance._native import ffi, lib
from appliance.domain.errors import MalformedDump
from appliance.network.wireguard.tunnel import PeerState, Prefix, SocketAddress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet


class TableCapacity(NamedTuple):
    """Holds the capacity for peers, and for the allowed-ips of all of them together."""

    peers: int
    allowed_ips: int


# struct wga_peer, wga_allowed_ip and wga_key of native/appliance.cdef.h; appliance.h asserts their sizes.
_PEER = struct.Struct("=32sQQqII16sIHH")
_ALLOWED_IP = struct.Struct("=16sBB")
_KEY_SIZE = 32
_MAPPED_IPV4 = bytes(10) + b"\xff\xff"  # what C has before an IPv4 address

# The parser writes whole entries, and only entries written for the same dump are read.
_new = ffi.new_allocator(should_clear_after_alloc=False)


class PeerTable:
    """Stores peers and their allowed-ips by index, in the order in which the device lists them."""

    def __init__(self, capacity: TableCapacity) -> None:
        self.dump = ffi.new("struct wga_dump *")
        self._allocate(capacity)

    def grow(self, capacity: TableCapacity) -> None:
        """Makes room for more, and keeps what is there."""
        peers = self._peer_rows[: len(self) * _PEER.size]
        allowed_ips = self._allowed_ip_rows[: self.dump.allowed_ip_count * _ALLOWED_IP.size]
        self._allocate(capacity)
        self._peer_rows[: len(peers)] = peers
        self._allowed_ip_rows[: len(allowed_ips)] = allowed_ips

    def _allocate(self, capacity: TableCapacity) -> None:
        self.capacity = capacity
        # The C struct only points at the arrays: these attributes keep them alive.
        self._peers = _new("struct wga_peer[]", capacity.peers)
        self._allowed_ips = _new("struct wga_allowed_ip[]", capacity.allowed_ips)
        self.dump.peers, self.dump.peer_capacity = self._peers, capacity.peers
        self.dump.allowed_ips, self.dump.allowed_ip_capacity = self._allowed_ips, capacity.allowed_ips
        self._peer_rows = ffi.buffer(self._peers)
        self._allowed_ip_rows = ffi.buffer(self._allowed_ips)

    def __len__(self) -> int:
        return self.dump.peer_count

    def grown_capacity(self) -> TableCapacity:
        """Returns a capacity that is doubled for the array that is full."""
        dump = self.dump
        peers_full = dump.peer_count == dump.peer_capacity
        allowed_ips_full = dump.allowed_ip_count == dump.allowed_ip_capacity
        return TableCapacity(self.capacity.peers * (1 + peers_full), self.capacity.allowed_ips * (1 + allowed_ips_full))

    def peer(self, position: int) -> PeerState:
        public_key, rx_bytes, tx_bytes, last_handshake_ns, first, many, *seen_at, keepalive_s = _PEER.unpack_from(
            self._peer_rows, position * _PEER.size
        )
        prefixes = []
        for at in range(first, first + many):
            address, size, length = _ALLOWED_IP.unpack_from(self._allowed_ip_rows, at * _ALLOWED_IP.size)
            prefixes.append(Prefix(address[:size], length))
        endpoint = _endpoint(*seen_at)
        return PeerState(public_key, frozenset(prefixes), rx_bytes, tx_bytes, last_handshake_ns, endpoint, keepalive_s)

    def keys(self) -> Iterator[bytes]:
        return (row[0] for row in _PEER.iter_unpack(ffi.buffer(self._peers, len(self) * _PEER.size)))


def _endpoint(address: bytes, scope_id: int, port: int) -> SocketAddress | None:
    return SocketAddress(address.removeprefix(_MAPPED_IPV4), port, scope_id) if port else None


class PeerIndex:
    """Maps public keys to indices in a table. Immutable, so any thread may read it."""

    def __init__(self, table: PeerTable) -> None:
        """Raises MalformedDump if a peer appears twice."""
        self._index = ffi.new("struct wga_peer_index *")
        self._index.secret = struct.unpack("=QQ", os.urandom(16))
        self._index.size = 1 << (2 * len(table)).bit_length()
        self._slots = _new("uint32_t[]", self._index.size)
        self._index.slots = self._slots
        if error := lib.wga_peer_index_fill(self._index, table.dump):
            if error == -EBADMSG:
                raise MalformedDump("malformed dump: a peer appears twice")
            raise RuntimeError(os.strerror(-error))

    def find(self, table: PeerTable, public_key: bytes) -> int | None:
        """Returns a peer's index in a table that this map holds for; None if the table has no such peer."""
        if len(public_key) != _KEY_SIZE:
            return None
        position = lib.wga_peer_index_find(self._index, table.dump, public_key)
        return None if position < 0 else position

    def changed(self, table: PeerTable, after: PeerTable, after_index: PeerIndex) -> frozenset[bytes]:
        """Returns the keys of peers added, removed or changed in a later table."""
        capacity = len(table) + len(after)
        changed = _new("struct wga_key[]", capacity)
        count = lib.wga_dump_compare(table.dump, self._index, after.dump, after_index._index, changed, capacity)
        if count < 0:
            raise RuntimeError(os.strerror(-count))
        keys = bytes(ffi.buffer(changed, count * _KEY_SIZE))
        return frozenset(keys[at : at + _KEY_SIZE] for at in range(0, len(keys), _KEY_SIZE))


class Peers(Mapping[bytes, PeerState]):
    """Maps public keys to the peers of one dump. `before`: the peers of the earlier dump to compare with as a whole.

    Once it is freed, its table may be reused: all readers of the table, iterators too, must keep a reference to it.
    """

    def __init__(self, table: PeerTable, before: Peers | None = None) -> None:
        """Raises MalformedDump if a peer appears twice."""
        self._table = table
        if before is not None and lib.wga_dump_same_order(before._table.dump, table.dump):
            self._index: PeerIndex = before._index
        else:
            self._index = PeerIndex(table)
        # A weak reference, or each dump would keep all earlier ones alive.
        self._before = None if before is None else ref(before)
        self._changed = self._compared_with(before) if before else frozenset[bytes]()

    def __getitem__(self, public_key: bytes) -> PeerState:
        position = self._index.find(self._table, public_key)
        if position is None:
            raise KeyError(public_key)
        return self._table.peer(position)

    def __contains__(self, public_key: object) -> bool:
        return isinstance(public_key, bytes) and self._index.find(self._table, public_key) is not None

    def __iter__(self) -> Iterator[bytes]:
        yield from self._table.keys()

    def __len__(self) -> int:
        return len(self._table)

    def changed_since(self, earlier: Peers) -> AbstractSet[bytes]:
        """Returns the public keys of peers added, removed or changed."""
        if not earlier:
            return self.keys()  # without a copy of all
        if self._before is not None and self._before() is earlier:
            return self._changed
        return self._compared_with(earlier)

    def _compared_with(self, earlier: Peers) -> frozenset[bytes]:
        return earlier._index.changed(earlier._table, self._table, self._index)
