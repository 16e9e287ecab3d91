"""Places sessions in a fleet: which exits to ask for one, and what of it this host takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.errors import NoActiveNodeInRegion, NoActiveNodes
from appliance.fleet.presence import choice

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.domain.clock import Clock
    from appliance.fleet.link.wire import HubLink
    from appliance.fleet.presence.beats import OwnBeats
    from appliance.fleet.presence.directory import Directory, Presence
    from appliance.sessions.node import Node


class FleetNodes:
    """Knows all exits' regions, and places on this one: implements `Placement` (sessions/batch_opens.py).

    `below`: returns a random number from 0 to below n.
    """

    def __init__(
        self,
        node: Node,
        directory: Directory,
        own: OwnBeats,
        link: HubLink,
        clock: Clock,
        below: Callable[[int], int],
    ) -> None:
        self._node = node
        self._directory = directory
        self._own = own
        self._link = link
        self._clock = clock
        self._below = below

    def presences(self) -> list[Presence]:
        """Returns how the exits of the fleet stand now, by name."""
        return self._directory.presences(self._own.now(), self._clock.now(), connected=self._link.connected)

    def apart(self) -> str | None:
        """Returns why this host works as a single one now; None: it does not."""
        return self._directory.apart(self._clock.now(), connected=self._link.connected)

    def regions(self) -> list[tuple[str, int]]:
        """Returns (code, number of active exits) of every region that has one, by code."""
        return choice.regions(self.presences())

    def standing(self) -> dict[str, bool]:
        """Returns the ids of all exits of the fleet, this one too, and whether each can be asked for what it has."""
        return {each.member.id: each.asked for each in self.presences()}

    def heard_for_s(self, node_id: str) -> float:
        """Returns for how much longer another exit is alive, if nothing more is heard of it; at most 0: it is dead."""
        return self._directory.heard_for_ms(node_id, self._clock.now()) / 1000

    def candidates(self, region: str) -> list[str]:
        """Returns the ids of the exits to ask for a session, the first one first; this one may be among them.

        Raises NoActiveNodes or NoActiveNodeInRegion, which names the regions that `regions` does.
        """
        return choice.candidates(region, self.presences(), self._directory.member.id, self._below)

    def choose(self, region: str) -> Node:
        """Returns this host's node, on which alone a session is opened here. Raises NoActiveNodes if it takes none.

        Raises NoActiveNodeInRegion if it is in another region.
        """
        if not self._node.active:
            raise NoActiveNodes
        if self._node.region != region:
            raise NoActiveNodeInRegion(region, tuple(code for code, _ in self.regions()))
        return self._node
