"""Knows the members of the fleet as this host's store has them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.domain.errors import StoreUnavailable
from appliance.sessions.stopping import wait
from appliance.store.queries import fleet_members

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection

    from appliance.fleet.membership.members import FleetMember
    from appliance.store.database import Store

LOOK_S = 0.5


class Roster:
    """Holds the members in memory, those too that have left."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._members: dict[str, FleetMember] = {}

    async def load(self) -> None:
        """Reads them from the store. Raises StoreUnavailable."""
        async with self._store.read() as db:
            self._members = {member.id: member for member in await fleet_members.everyone(db)}

    async def follow(
        self, position: Callable[[], object], changed: Callable[[], None], stopping: asyncio.Event
    ) -> None:
        """Reads them again whenever the hub's store has changed, until `stopping`. On a hub."""
        last: object = None
        while not stopping.is_set():
            if (now := position()) != last:
                with suppress(StoreUnavailable):  # the tick says so; the next look tries again
                    await self.load()
                    last = now
                    changed()
            await wait(stopping, LOOK_S)

    def all(self) -> Collection[FleetMember]:
        return self._members.values()

    def get(self, node_id: str) -> FleetMember | None:
        return self._members.get(node_id)

    def present(self) -> list[str]:
        """Returns the ids of the members that have not left."""
        return [member.id for member in self._members.values() if member.left_at is None]

    def standbys(self) -> list[str]:
        """Returns the ids of the hosts that stand by for the hub."""
        return [each.id for each in self._members.values() if each.left_at is None and each.role == "standby"]

    def is_present(self, node_id: str) -> bool:
        member = self._members.get(node_id)
        return member is not None and member.left_at is None

    def is_hub(self, node_id: str) -> bool:
        member = self._members.get(node_id)
        return member is not None and member.left_at is None and member.role == "hub"

    def xkey_of(self, node_id: str) -> bytes | None:
        """Returns the key with which rpc is sealed to a member; None: it is not in the fleet."""
        member = self._members.get(node_id)
        return None if member is None or member.left_at is not None else member.xkey
