"""Says which hosts are the fleet's hubs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain.fleet_member import is_cluster

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.domain.clock import Clock
    from appliance.fleet.membership.members import FleetMember, Role

HELD_MS = 8_000


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

    def are_those_of(self, other: HubSet) -> bool:
        """Tells whether these are the same hosts, whichever leads and wherever they are dialled."""
        return self.since == other.since and {each.id for each in self.hubs} == {each.id for each in other.hubs}


class HeldHubs:
    """Goes by other hubs only some seconds after it has read of them, where those of before are a cluster.

    Its hubs hear of the change by way of each other: one that left the cluster at once would not be heard any more, and
    they would have another of them lead. One that is alone is heard all the same, and goes by others at once; so does
    one that was not the hub before, or is not any more.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._in_force: HubSet | None = None
        self._role: Role | None = None
        self._read_ms: int | None = None  # CLOCK_BOOTTIME, when it was first read that there are others

    def be(self, role: Role) -> None:
        """Takes notice of what this host is."""
        if role != self._role:
            self._role, self._in_force = role, None

    def of(self, members: Iterable[FleetMember]) -> HubSet:
        """Returns the hubs by which to go now. `members`: as the store has them now."""
        found, now_ms = HubSet.of(members), self._clock.now().boot_ms
        if self._in_force is None or not self._in_force.is_cluster or self._in_force.are_those_of(found):
            self._in_force, self._read_ms = found, None
        elif self._read_ms is None:
            self._read_ms = now_ms
        elif now_ms - self._read_ms >= HELD_MS:
            self._in_force, self._read_ms = found, None
        return self._in_force
