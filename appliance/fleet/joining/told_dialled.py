"""Knows where the members of the fleet would be dialled as hubs, as each has told; on the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.fleet.joining.messages import is_dialled
from appliance.store.queries import fleet_members

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.fleet.membership.roster import Roster
    from appliance.store.database import Store


class ToldDialled:
    """Keeps it in memory; and in the store of the hub and its standbys, which others dial.

    Not of spokes: a stolen one could have the others dial where its thief likes.
    """

    def __init__(self, store: Store, roster: Roster) -> None:
        self._store = store
        self._roster = roster
        self._told: dict[str, str] = {}

    @property
    def told(self) -> Mapping[str, str]:
        """Returns what each member has told since this hub started; "": that it cannot be a hub."""
        return self._told

    async def note(self, node_id: str, dialled: str | None) -> None:
        """Takes notice of what a member tells. None: its version tells none. Raises StoreUnavailable."""
        member = self._roster.get(node_id)
        if member is None or dialled is None or not (dialled == "" or is_dialled(dialled)):
            return
        self._told[node_id] = dialled
        if dialled not in ("", member.dialled) and member.left_at is None and member.role != "spoke":
            async with self._store.write() as db:
                await fleet_members.put_dialled(db, node_id, dialled)
            await self._roster.load()
