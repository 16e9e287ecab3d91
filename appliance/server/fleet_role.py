"""Makes of this host in its fleet what its store says: hub, standby or spoke; and has a hub yield to a newer one."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError, StoreUnavailable
from appliance.fleet.accounts import generations
from appliance.fleet.hub.config import member_inbox
from appliance.fleet.link.link import hub_tls
from appliance.fleet.link.nats_client import LinkUser
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.hub_addresses import brought_up_to_date
from appliance.sessions.stopping import wait
from appliance.store.queries import fleet_members, fleet_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.domain.clock import Clock
    from appliance.fleet.membership.identity import FleetFolder, Membership, NodeKeys
    from appliance.store.database import Store
    from appliance.store.queries.fleet_state import FleetRow

log = logging.getLogger(__name__)

LEADING_LOOKS = 6  # one in so many looks is made by a hub that leads for certain
LOOK_S = 5.0  # how soon a hub that was replaced notices that its successor can be reached


def user_of(membership: Membership, keys: NodeKeys) -> LinkUser:
    """Returns as whom this host signs on to hubs."""
    return LinkUser(keys.node_id, member_inbox(keys.node_id), NKey.from_seed(keys.seed), hub_tls(membership.ca))


class FleetRole:
    """Keeps `membership.json` and a hub's files to the store, whose word it is."""

    def __init__(self, store: Store, folder: FleetFolder, clock: Clock) -> None:
        self._store = store
        self.folder = folder
        self._clock = clock

    async def settle(self, membership: Membership, *, leads: bool = False) -> tuple[Membership, FleetRow]:
        """Returns what this host is now: a hub asks the others first, and yields to one of a newer generation.

        `leads`: no other hub does for certain. Raises HostError or StoreUnavailable.
        """
        if not leads:
            await self.yield_if_replaced(membership)
        row = await self._row()
        return await self.brought_up_to_date(membership), row

    async def _row(self) -> FleetRow:
        async with self._store.read() as db:
            row = await fleet_state.read(db)
        if row is None:
            raise HostError(
                "the store knows nothing of the fleet that this host is in: run the command that joined it again"
            )
        return row

    async def brought_up_to_date(self, membership: Membership) -> Membership:
        """Writes what the store says of this host and of the hubs, if it is not what the file has; returns it."""
        async with self._store.read() as db:
            row, members = await fleet_state.read(db), await fleet_members.everyone(db)
        if row is None:
            return membership
        found = brought_up_to_date(membership, row.node_id, row.role, members)
        if found != membership and self.folder.is_member:
            await asyncio.to_thread(self.folder.save_membership, found)
        return found

    async def yield_if_replaced(self, membership: Membership) -> None:
        """Asks the other hubs' addresses, on a hub. Raises StoreUnavailable."""
        async with self._store.read() as db:
            row, members = await fleet_state.read(db), await fleet_members.everyone(db)
        if row is None or row.role != "hub":
            return
        _, *others = brought_up_to_date(membership, row.node_id, row.role, members).hubs
        if not others:
            return
        keys = self.folder.keys()
        newer = await generations.newer_than(row.gen, user_of(membership, keys), keys.node_id, others, self._clock)
        if newer is None:
            return
        async with self._store.write() as db:
            lacking = await generations.yield_to(db, newer, self._clock.now().wall_ms)
        if lacking is None:
            return  # it has become another part meanwhile
        log.warning("the fleet has another hub, of generation %d: this host is its standby now", newer.number)
        if lacking:
            log.warning(
                "changes that the other hub does not have: %d; wg-appliance fleet conflicts lists them", lacking
            )

    async def watch(
        self, membership: Callable[[], Membership], leads: Callable[[], bool], stopping: asyncio.Event
    ) -> None:
        """Looks again and again, until `stopping`. On a hub. `leads`: no other hub of several does for certain.

        One that was taken for lost with the others may have been made the hub by hand all the same.
        """
        looks = 0
        while not stopping.is_set():
            await wait(stopping, LOOK_S)
            looks += 1
            if leads() and looks % LEADING_LOOKS:
                continue
            with suppress(StoreUnavailable):  # the tick says so
                await self.yield_if_replaced(membership())
