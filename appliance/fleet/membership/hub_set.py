"""Says which hosts are the fleet's hubs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain.fleet_member import is_cluster

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.fleet.membership.members import FleetMember


@dataclass(frozen=True, slots=True)
class HubSet:
    """Holds the hub and its standbys, the hub first, as a store's members have them.

    `since`: since when they are these, in ms of the wall clock of who changed it; 0: since before there were several.
    """

    hubs: tuple[FleetMember, ...]
    since: int

    @classmethod
    def of(cls, members: Iterable[FleetMember]) -> HubSet:
        """Returns the hubs among the members, those that have left aside."""
        found = [each for each in members if each.left_at is None and each.role != "spoke"]
        found.sort(key=lambda each: (each.role != "hub", each.joined_at, each.id))
        return cls(tuple(found), max((each.hub_since for each in found), default=0))

    @property
    def is_cluster(self) -> bool:
        """Tells whether their nats-servers are one cluster."""
        return is_cluster(self.hubs)
