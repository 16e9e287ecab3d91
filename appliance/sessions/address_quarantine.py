"""Keeps the addresses of ended sessions until another session may have them.

An address is free again once no conntrack flow of it is left: what the internet still sends to it would reach its next
holder. The kernel walks its whole flow table to find some, and a client may have had tens of thousands: requests and
ticks do not wait for it, and addresses that are added meanwhile are looked up together.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Container
    from ipaddress import IPv4Address, IPv6Address

    from appliance.network.address_pool import AddressPool
    from appliance.network.exit_node import Exit


log = logging.getLogger(__name__)


class AddressQuarantine:
    """Holds addresses by their offsets, which stay taken in the pool until their flows are gone."""

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
        self._others: Container[int] = ()
        self._releasing: asyncio.Future[None] | None = None

    def add(self, offset: int) -> None:
        """Puts an address of an ended session into quarantine."""
        self._offsets.add(offset)

    def leave(self, others: Container[int]) -> None:
        """Has these stay taken in the pool: a command may give a device the address of a session that has ended."""
        self._others = others

    def begin_release(self) -> None:
        """Begins to delete the addresses' flows, after which they are free; nothing waits for that.

        Does nothing while an earlier call's work goes on: it takes up what has been added meanwhile.
        """
        if self._offsets and (self._releasing is None or self._releasing.done()):
            self._releasing = asyncio.ensure_future(self._release())
            self._releasing.add_done_callback(_report)

    async def released(self) -> bool:
        """Waits until the addresses of ended sessions are free; returns whether any address is free."""
        if self._offsets:
            self.begin_release()
            if self._releasing is not None:
                # A request that is cancelled must not take the others' work with it.
                await asyncio.shield(self._releasing)
        return self._pool.in_use < self._pool.capacity

    async def released_by(self, deadline: float) -> bool:
        """Waits for that until `deadline` (the loop's time); returns whether an address may be free then."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self.released()
        except TimeoutError:
            return False

    async def _release(self) -> None:
        while offsets := set(self._offsets):
            await self._forget_flows([a for offset in offsets for a in self._exit.addresses(offset, ipv6=True)])
            self._offsets -= offsets
            for offset in offsets:
                if offset not in self._others:
                    self._pool.release(offset)


def _report(releasing: asyncio.Future[None]) -> None:
    """Logs a failure, after which the next call tries again."""
    if not releasing.cancelled() and (error := releasing.exception()) is not None:
        log.error("addresses of ended sessions are not free yet: %s", error, exc_info=error)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Holds the clients' addresses: the pool of all, and the quarantine of those not free yet."""

    pool: AddressPool
    quarantine: AddressQuarantine
