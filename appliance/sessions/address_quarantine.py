"""The addresses of sessions that have ended, until they may be another's.

An address is free again once no flow of its is left: what the internet still sends to it would reach its next holder.
The kernel walks its whole table of flows to find some, which takes it milliseconds: no other request waits for that,
and what has ended meanwhile is looked for together.
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


class RetiredAddresses:
    """By their offsets, which stay taken in the pool until `release`."""

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
        self._offsets.add(offset)

    async def release(self) -> None:
        """Where it is cut short, they are there for the next time."""
        async with self._releasing:
            if offsets := set(self._offsets):
                await self._forget_flows([a for offset in offsets for a in self._exit.addresses(offset, ipv6=True)])
                self._offsets -= offsets
                for offset in offsets:
                    self._pool.release(offset)

    async def make_room(self) -> None:
        """Release them at once where no other address is free."""
        if self._offsets and self._pool.in_use == self._pool.capacity:
            await self.release()


@dataclass(frozen=True, slots=True)
class Addresses:
    """Holds the clients' addresses: the pool of all, and those of ended sessions that are not free yet."""

    pool: AddressPool
    retired: RetiredAddresses
