"""Frees on a hub what hosts held in the fleet that have left it, or were forgotten."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from appliance.domain.errors import CutOff, FleetError, StoreUnavailable
from appliance.sessions.stopping import wait
from appliance.store.queries import accounts, fleet_members, fleet_partings
from appliance.store.queries.fleet_partings import FreedClaims, LostDevice

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence

    from appliance.fleet.claims.forgotten import Freed, FreedName
    from appliance.fleet.claims.ledger import ClaimLedger
    from appliance.store.database import Store
    from appliance.store.queries.fleet_partings import Parting

log = logging.getLogger(__name__)

LOOK_S = 0.5


class HubPartings:
    """Frees their claims. `is_member`: whether a host is in the fleet, as the ledger knows: from then on it claims no
    more. `also`: frees what else a host held; each raises FleetError or StoreUnavailable."""

    def __init__(
        self,
        store: Store,
        claims: ClaimLedger,
        is_member: Callable[[str], bool],
        also: Sequence[Callable[[str], Awaitable[object]]] = (),
    ) -> None:
        self._store = store
        self._claims = claims
        self._is_member = is_member
        self._also = also
        self._failing = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Looks until `stopping`. What is not freed, as JetStream does not answer, is tried again."""
        while not stopping.is_set():
            try:
                await self.look()
                self._failing = False
            except CutOff:
                pass  # the link says so
            except (FleetError, StoreUnavailable) as error:
                if not self._failing:
                    log.warning("what hosts held that are gone is not freed yet: %s", error)
                self._failing = True
            await wait(stopping, LOOK_S)

    async def look(self) -> None:
        """Frees what is noted now. Raises FleetError or StoreUnavailable."""
        async with self._store.read() as db:
            noted = await fleet_partings.noted(db)
            members = {each.id for each in await fleet_members.present(db)} if noted else set()
        for each in noted:
            if each.node_id in members:  # it has come back, and has again what it had
                await self._tell(each, FreedClaims(each.node_id))
            elif not self._is_member(each.node_id):  # else the ledger does not know yet
                await self._free(each)

    async def _free(self, parting: Parting) -> None:
        freed = await self._claims.forget(parting.node_id)
        owners = {each.account_id for each in freed.names}
        for free in self._also:
            await free(parting.node_id)
        async with self._store.read() as db:
            names = {key: each.name for key, each in (await accounts.by_ids(db, owners)).items()}
        await self._tell(parting, _told(parting.node_id, freed, names))
        log.info("freed of %s: %d keys, %d names of devices", parting.node_id, freed.keys, len(freed.names))

    async def _tell(self, parting: Parting, freed: FreedClaims) -> None:
        async with self._store.write() as db:
            await fleet_partings.freed(db, parting, freed)


def _told(node_id: str, freed: Freed, names: dict[str, str]) -> FreedClaims:
    def of(each: FreedName) -> LostDevice:
        return LostDevice(names[each.account_id], each.name)

    devices = sorted(
        (of(each) for each in freed.names if each.account_id in names), key=lambda d: (d.account, d.device)
    )
    return FreedClaims(node_id, freed.keys, tuple(devices))
