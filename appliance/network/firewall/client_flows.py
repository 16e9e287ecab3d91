"""Deletes clients' flows that must not go on as they are, in threads: one walk of the kernel's table at a time."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from appliance.network.firewall import conntrack, flow_excess

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from appliance.network.firewall.rules import Network
    from appliance.network.firewall.settled_listeners import Port

    Address = IPv4Address | IPv6Address

log = logging.getLogger(__name__)


class ClientFlows:
    """Holds what is to be deleted. A failure is logged: the exit works without it."""

    def __init__(self, subnets: Sequence[Network]) -> None:
        self._subnets = subnets
        self._abandoned: set[Address] = set()  # what no flow can leave with any more
        self._walking = asyncio.Lock()
        self._background: set[asyncio.Future[None]] = set()

    def abandon(self, addresses: Collection[Address]) -> None:
        """Notes addresses with which no flow can leave any more; `begin_anew` deletes those that do."""
        self._abandoned.update(addresses)

    def begin_anew(self) -> None:
        """Begins to delete, in the background, the flows that a replaced table does not translate as it should."""
        anew = asyncio.ensure_future(self._settle())
        self._background.add(anew)
        anew.add_done_callback(self._background.discard)

    async def forget(self, addresses: Collection[Address]) -> None:
        """Deletes flows of these addresses, whose sessions have ended."""
        await self._forget(lambda: conntrack.forget_of(addresses))

    async def forget_others(self, held: Collection[Address]) -> None:
        """Deletes flows of all addresses in the subnets except these."""
        await self._forget(lambda: conntrack.forget_others(self._subnets, held))

    async def forget_on_ports(self, ports: Collection[Port]) -> None:
        """Deletes clients' flows that leave from ports on which a service of the host listens now."""
        try:
            async with self._walking:
                many = await asyncio.to_thread(conntrack.forget_on_ports, self._subnets, ports)
        except OSError as error:
            log.warning("clients' connections may take answers to a service of this host: conntrack: %s", error)
        else:
            if many:
                log.info("connections that left from a port with a listener: %d, begun anew", many)

    async def forget_excess(self, most: int) -> int:
        """Deletes what clients hold beyond `most` flows, and their closed ones; returns how many."""
        try:
            async with self._walking:
                return await asyncio.to_thread(self._forget_excess, most)
        except OSError as error:
            log.warning("clients may fill the host's connection tracking table: conntrack: %s", error)
            return 0

    def _forget_excess(self, most: int) -> int:
        hostmask = next(int(subnet.hostmask) for subnet in self._subnets if subnet.version == 4)
        sources = (entry.source for entry in conntrack.begun_from(self._subnets))
        over = flow_excess.sources_over(sources, hostmask, most)
        # All are read before any is deleted: the kernel lists them by the place where it was.
        return conntrack.forget_flows(list(flow_excess.excess(conntrack.flows_from(over), hostmask, most)))

    async def _forget(self, forget: Callable[[], int]) -> None:
        try:
            async with self._walking:
                await asyncio.to_thread(forget)
        except OSError as error:
            log.warning("connections of a session that ended may go on: conntrack: %s", error)

    async def _settle(self) -> None:
        await self._forget_untranslated()
        await self._forget_abandoned()

    async def _forget_untranslated(self) -> None:
        """Deletes flows without source NAT, which began while the table was missing or changed."""
        try:
            async with self._walking:
                many = await asyncio.to_thread(conntrack.forget_untranslated, self._subnets)
        except OSError as error:
            log.warning("connections that began without the table may hang: conntrack: %s", error)
        else:
            if many:
                log.info("connections that had begun without the table: %d, begun anew", many)

    async def _forget_abandoned(self) -> None:
        """Deletes flows that leave with an address by which no answer comes any more: they would hang for minutes."""
        gone, self._abandoned = frozenset(self._abandoned), set()
        if not gone:
            return
        try:
            async with self._walking:
                many = await asyncio.to_thread(conntrack.forget_translated, self._subnets, gone)
        except OSError as error:
            log.warning("connections that left with %s may hang: conntrack: %s", _listed(gone), error)
        else:
            log.info("connections that left with %s: %d, begun anew", _listed(gone), many)


def _listed(addresses: Iterable[Address]) -> str:
    return ", ".join(sorted(map(str, addresses)))
