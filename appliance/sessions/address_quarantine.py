"""Keeps the addresses of ended sessions until another session may have them.

An address is free again once no conntrack flow of it is left: what the internet still sends to it would reach its next
holder. The kernel walks its whole flow table to find some, which takes milliseconds: requests do not wait for it, and
addresses that are added meanwhile are looked up together.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from ipaddress import IPv4Address, IPv6Address

    from appliance.network.address_pool import AddressPool
    from appliance.network.exit_node import Exit


class AddressQuarantine:
    """Holds addresses by their offsets, which stay taken in the pool until `release`."""

    def __init__(
        self,
        pool: AddressPool,
        exit_: Exit,
        forget_flows: Callable[[Collection[IPv4Address | IPv6Address]], Awaitable[None]],
    ) -> None:
        self._pool = pool
        self._exit = exit_
        self._forget_flows = forget_flows
        self._offsets: set[int] = set()
        self._releasing = asyncio.Lock()

    def add(self, offset: int) -> None:
        """Puts an address of an ended session into quarantine."""
        self._offsets.add(offset)

    async def release(self) -> None:
        """Deletes the addresses' flows and frees them. If cancelled, the next call does what is left."""
        async with self._releasing:
            if offsets := set(self._offsets):
                await self._forget_flows([a for offset in offsets for a in self._exit.addresses(offset, ipv6=True)])
                self._offsets -= offsets
                for offset in offsets:
                    self._pool.release(offset)

    async def release_if_exhausted(self) -> None:
        """Releases all addresses at once if no other address is free."""
        if self._offsets and self._pool.in_use == self._pool.capacity:
            await self.release()


@dataclass(frozen=True, slots=True)
class Addresses:
    """Holds the clients' addresses: the pool of all, and the quarantine of those not free yet."""

    pool: AddressPool
    quarantine: AddressQuarantine
