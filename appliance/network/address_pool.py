"""Allocates the tunnel's client addresses: a set of offsets within the subnet, kept in C.

Allocates next fit: a released address is reused only after the search has gone round the subnet, so that late packets
for its last holder seldom reach the next one. Not thread-safe.
"""

from __future__ import annotations

from errno import EEXIST
from typing import TYPE_CHECKING

from appliance._native import ffi, lib
from appliance.domain.errors import SubnetExhausted

if TYPE_CHECKING:
    from collections.abc import Collection
    from ipaddress import IPv4Network

WIDEST, NARROWEST = 16, 30  # prefix lengths
EXIT_OFFSET = 1  # the first host address is the exit's own


class AddressPool:
    """Allocates the client addresses of an IPv4 subnet, /30 to /16, all free at first.

    Addresses are offsets from the network address. The network address (0), the exit's own (1) and the
    broadcast address (the last) are not for clients: never allocated, refused by `reserve` and `release`.
    """

    def __init__(self, network: IPv4Network) -> None:
        if not WIDEST <= network.prefixlen <= NARROWEST:
            raise ValueError(f"{network} is not a /{NARROWEST} to /{WIDEST}")
        self._network = network
        self._clients = range(EXIT_OFFSET + 1, network.num_addresses - 1)
        # The C struct only points at the words: this attribute keeps them alive.
        self._words = ffi.new("uint64_t[]", (network.num_addresses + 63) // 64)
        self._pool = ffi.new("struct wga_pool *")
        lib.wga_pool_init(self._pool, self._words, network.num_addresses)
        for offset in (0, EXIT_OFFSET, network.num_addresses - 1):
            lib.wga_pool_reserve(self._pool, offset)

    @property
    def capacity(self) -> int:
        """Returns how many clients the subnet can hold."""
        return len(self._clients)

    @property
    def in_use(self) -> int:
        """Returns how many addresses are allocated."""
        return self._pool.used - (self._pool.size - self.capacity)

    def allocate(self) -> int:
        """Allocates a free offset. Raises SubnetExhausted if there is none."""
        offset = lib.wga_pool_allocate(self._pool)
        if offset < 0:
            raise SubnetExhausted
        return offset

    def reserve(self, offset: int) -> None:
        """Allocates this offset. Raises ValueError if it is allocated already, or not for clients."""
        self._check(offset)
        if lib.wga_pool_reserve(self._pool, offset) == -EEXIST:
            raise ValueError(f"{self._network[offset]} is taken")

    def release(self, offset: int) -> None:
        """Releases this offset. Raises ValueError if it is not allocated, or not for clients."""
        self._check(offset)
        if lib.wga_pool_release(self._pool, offset) < 0:
            raise ValueError(f"{self._network[offset]} is not taken")

    def unlike(self, offsets: Collection[int]) -> list[int]:
        """Returns allocated offsets missing from `offsets`, and offsets in `offsets` that are not allocated."""
        return [offset for offset in self._clients if (offset in self) != (offset in offsets)]

    def __contains__(self, offset: int) -> bool:
        """Tells whether this offset is allocated."""
        return offset in self._clients and lib.wga_pool_test(self._pool, offset) == 1

    def _check(self, offset: int) -> None:
        if offset not in self._clients:
            raise ValueError(f"offset {offset} is not a client's in {self._network}")
