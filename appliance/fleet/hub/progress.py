"""Tells how far this hub has followed the accounts of the one that leads, from its store; implements `Progress`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.fleet.accounts import generations
from appliance.fleet.hub.lead import Change, Followed
from appliance.store.queries import fleet_changes, fleet_state
from appliance.store.queries.fleet_changes import Head

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.store.database import Store

NOTHING = Followed(Change(0, 0, ""))


class StoreProgress:
    """Reads the store. `told`: returns the newest change of this hub's own that another hub says to have."""

    def __init__(self, store: Store, told: Callable[[], Change | None]) -> None:
        self._store = store
        self.told = told

    async def followed(self, kept: Change | None) -> Followed:
        async with self._store.read() as db:
            row = await fleet_state.read(db)
            if row is None or row.role == "spoke":
                return NOTHING
            if row.role == "standby" and not row.acc_rev:  # of what it stands by for; it may have led before
                gen, held = row.kept
                return Followed(Change(gen, held.rev, held.mark), seen=row.gen)
            if row.role == "standby":
                return Followed(Change(row.gen, row.acc_rev, row.acc_mark))
            head = await fleet_changes.head(db)
            is_known = kept is not None and (
                await fleet_changes.known(db, Head(kept.rev, kept.mark)) or await fleet_changes.is_past(db, kept.rev)
            )
        return Followed(Change(row.gen, head.rev, head.mark), lambda change: is_known and change == kept)

    async def first(self) -> Change | None:
        """Returns the first change that several hubs are to keep, if this is the hub by its store.

        It is the last that another one has told to have; else this hub's last. None: it is none.
        Raises StoreUnavailable.
        """
        async with self._store.read() as db:
            row, head = await fleet_state.read(db), await fleet_changes.head(db)
        if row is None or row.role != "hub":
            return None
        told = self.told()
        return told if told is not None and told.gen == row.gen else Change(row.gen, head.rev, head.mark)

    async def require_writable(self) -> None:
        async with self._store.write() as db:
            await db.execute("UPDATE fleet SET gen = gen")

    async def begin(self, gen: int) -> None:
        async with self._store.write() as db:
            await generations.take_lead(db, gen)

    async def acknowledge(self, change: Change) -> None:
        async with self._store.write() as db:
            await fleet_state.put_kept(db, change.gen, change.rev, change.mark)
