"""Which of the tunnel's addresses clients hold: a set of offsets within the subnet, kept in C.

Handed out next fit: an address given back is reused only after the search has gone round the subnet,
so that late packets for its last holder seldom reach the next one. Not for several threads at once.
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
    """The client addresses of an IPv4 subnet, /30 to /16, all free at first.

    Addresses are offsets from the network address. The network address (0), the exit's own (1) and the
    broadcast address (the last) are no client's: never handed out, refused by `reserve` and `release`.
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
        """How many clients the subnet can hold."""
        return len(self._clients)

    @property
    def in_use(self) -> int:
        """How many addresses clients hold."""
        return self._pool.used - (self._pool.size - self.capacity)

    def allocate(self) -> int:
        """Take a free offset. Raises `SubnetExhausted`."""
        offset = lib.wga_pool_allocate(self._pool)
        if offset < 0:
            raise SubnetExhausted
        return offset

    def reserve(self, offset: int) -> None:
        """Take this offset. Raises `ValueError` when it is taken already, or not a client's."""
        self._check(offset)
        if lib.wga_pool_reserve(self._pool, offset) == -EEXIST:
            raise ValueError(f"{self._network[offset]} is taken")

    def release(self, offset: int) -> None:
        """Give this offset back. Raises `ValueError` when it is not taken, or not a client's."""
        self._check(offset)
        if lib.wga_pool_release(self._pool, offset) < 0:
            raise ValueError(f"{self._network[offset]} is not taken")

    def unlike(self, offsets: Collection[int]) -> list[int]:
        """Those taken that are not among `offsets`, and those among them that are not taken."""
        return [offset for offset in self._clients if (offset in self) != (offset in offsets)]

    def __contains__(self, offset: int) -> bool:
        """Whether a client holds this offset."""
        return offset in self._clients and lib.wga_pool_test(self._pool, offset) == 1

    def _check(self, offset: int) -> None:
        if offset not in self._clients:
            raise ValueError(f"offset {offset} is not a client's in {self._network}")
