"""Frees on a hub what hosts held in the fleet that have left it, or were forgotten."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from appliance.fleet.link.looking import look_until
from appliance.store.commits import StoreNews
from appliance.store.queries import accounts, fleet_members, fleet_partings
from appliance.store.queries.fleet_partings import FreedClaims, LostDevice

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from appliance.fleet.claims.forgotten import Freed, FreedName
    from appliance.fleet.claims.ledger import ClaimLedger
    from appliance.store.database import Store
    from appliance.store.queries.fleet_partings import Parting

log = logging.getLogger(__name__)

LOOK_S = 0.5


class HubPartings:
    """Frees their claims. `is_member`: whether a host is in the fleet, as the ledger knows: from then on it claims no
    more. What it was lent of limits is free by itself, as the ledger goes by the members."""

    def __init__(self, store: Store, claims: ClaimLedger, is_member: Callable[[str], bool]) -> None:
        self._store = store
        self._news = StoreNews(store.commits)
        self._claims = claims
        self._is_member = is_member

    async def run(self, stopping: asyncio.Event) -> None:
        """Looks until `stopping`. What is not freed, as JetStream does not answer, is tried again."""
        await look_until(stopping, self.look, LOOK_S, log, "what hosts held that are gone is not freed yet")

    async def look(self) -> None:
        """Frees what is noted now. Raises FleetError or StoreUnavailable."""
        if not self._news.is_any():
            return
        async with self._store.read() as db:
            noted = await fleet_partings.noted(db)
            members = {each.id for each in await fleet_members.present(db)} if noted else set()
        if not noted:
            self._news.taken()
        for each in noted:
            if each.node_id in members:  # it has come back, and has again what it had
                await self._tell(each, FreedClaims(each.node_id))
            elif not self._is_member(each.node_id):  # else the ledger does not know yet
                await self._free(each)

    async def _free(self, parting: Parting) -> None:
        freed = await self._claims.forget(parting.node_id)
        owners = {each.account_id for each in freed.names}
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
