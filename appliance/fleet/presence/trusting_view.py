"""Shows the fleet's exits to this host's API for as long as it may go by the accounts that it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.errors import NoActiveNodes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.fleet.presence.offline import OfflineTokens
    from appliance.fleet.presence.placement import FleetNodes


class TrustingView:
    """Implements FleetView (exits.py): `nodes`, or nothing once the ledger was not heard for too long."""

    def __init__(self, nodes: FleetNodes, tokens: OfflineTokens) -> None:
        self._nodes = nodes
        self._tokens = tokens

    def candidates(self, region: str) -> Sequence[str]:
        """Returns the ids of the exits to ask for a session. Raises NoActiveNodes or NoActiveNodeInRegion."""
        self._tokens.check()
        return self._nodes.candidates(region)

    def regions(self) -> list[tuple[str, int]]:
        """Returns (code, number of active exits) of every region that has one, by code."""
        try:
            self._tokens.check()
        except NoActiveNodes:
            return []
        return self._nodes.regions()

    def standing(self) -> dict[str, bool]:
        """Returns the ids of all exits, and whether each can be asked."""
        return self._nodes.standing()

    def heard_for_s(self, node_id: str) -> float:
        """Returns for how much longer another exit is alive, if nothing more is heard of it; at most 0: it is dead."""
        return self._nodes.heard_for_s(node_id)
