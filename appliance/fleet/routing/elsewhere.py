"""Groups what it takes to reach the other exits, and tells whose a session or device is by its id."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from appliance.domain import ids
from appliance.domain.errors import ApplianceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.fleet.routing.attempts import Placing
    from appliance.fleet.rpc.exits import Exits, FleetView
    from appliance.fleet.rpc.intents import Intents
    from appliance.fleet.rpc.operations import ExitOperation

Q = TypeVar("Q")
A = TypeVar("A")

log = logging.getLogger(__name__)

ONE_S = 2.0  # for one session or device
LIST_S = 1.0
CHANGE_S = 8.0  # of a device, which takes as long as the exit's apply_timeout


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Reaches the other exits of the fleet. `own_id`: this one's id."""

    own_id: str
    view: FleetView
    exits: Exits
    intents: Intents
    placing: Placing

    def owner_of(self, id_: str) -> str | None:
        """Returns the exit that made a session or device; None: it is older than the fleet, or its exit has left."""
        mark = ids.mark_of(id_)
        return next((node for node in self.view.standing() if ids.mark_of_node(node) == mark), None)

    def may_tell(self, node_id: str, id_: str) -> bool:
        """Tells whether an exit may list a session or device as its own: one that is in the wrong hands lists all."""
        return self.owner_of(id_) in (None, node_id)

    def is_there(self, node_id: str) -> bool:
        """Tells whether an exit can be asked now."""
        return self.view.standing().get(node_id, False)

    async def ask_all(self, operation: ExitOperation[Q, A], request: Q) -> Mapping[str, A | None]:
        """Asks all other exits at once; returns their answers by id. None: it is away, or has not answered in time."""
        found: dict[str, A | None] = {}

        async def ask(node_id: str) -> None:
            answer = await self._one_of_all(node_id, operation, request)
            found[node_id] = answer

        await asyncio.gather(*(ask(node) for node in self.view.standing() if node != self.own_id))
        return found

    async def _one_of_all(self, node_id: str, operation: ExitOperation[Q, A], request: Q) -> A | None:
        if not self.is_there(node_id):
            return None
        try:
            return await self.exits.ask(node_id, operation, request, LIST_S)
        except ApplianceError as error:
            log.info("%s has not answered %s: %s", node_id, operation.name, error)
            return None
