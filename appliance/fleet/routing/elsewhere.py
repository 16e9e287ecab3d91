"""Groups what it takes to reach the other exits, and tells whose a session or device is by its id."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec

from appliance.domain import ids
from appliance.domain.errors import ApplianceError, NotKnown
from appliance.fleet.link.reading import Unreadable, read
from appliance.fleet.rpc.operations import ASK_ALL, AskAll

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from appliance.fleet.routing.attempts import Placing
    from appliance.fleet.rpc.exits import Exits, FleetView
    from appliance.fleet.rpc.intents import Intents
    from appliance.fleet.rpc.operations import ExitOperation

Q = TypeVar("Q")
A = TypeVar("A")

log = logging.getLogger(__name__)

ONE_S = 2.0  # for one session or device
LIST_S, WAY_S = 1.0, 1.0  # of all exits, and to the hub that asks them
CHANGE_S = 8.0  # of a device, which takes as long as the exit's apply_timeout


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Reaches the other exits of the fleet. `own_id`: this one's id.

    `account_of`: returns the id of a token's account. `hub_id`: of a hub that can be asked now; None on a hub.
    """

    own_id: str
    view: FleetView
    exits: Exits
    intents: Intents
    placing: Placing
    account_of: Callable[[str], Awaitable[str]]
    hub_id: Callable[[], str | None] | None

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
        """Asks all other exits at once; returns their answers by id. None: it is away, or has not answered in time.

        The request shows the client's token; it is shown to a hub alone, which asks the others by the account's id.
        """
        if self.hub_id is None:
            token: str = request.token  # type: ignore[attr-defined]
            account_id = await self.account_of(token)
            asked = msgspec.structs.replace(request, token="", for_account=account_id)  # type: ignore[type-var]
            return await self.ask_each(operation, asked, without="")
        others = [node for node in self.view.standing() if node != self.own_id]
        told = await self._through_hub(operation, request)
        return {node: told.get(node) for node in others}

    async def _through_hub(self, operation: ExitOperation[Q, A], request: Q) -> dict[str, A]:
        hub_id = None if self.hub_id is None else self.hub_id()
        if hub_id is None:
            return {}
        asked = AskAll(request.token, operation.name, msgspec.Raw(msgspec.json.encode(request)))  # type: ignore[attr-defined]
        try:
            told = await self.exits.ask(hub_id, ASK_ALL, asked, LIST_S + WAY_S)
            return {node: read(each, operation.answer) for node, each in told.answers.items()}
        except NotKnown:  # its version is older: it tells its own, and of the others what they have reported
            answer = await self._one_of_all(hub_id, operation, request)
            return {} if answer is None else {hub_id: answer}
        except (ApplianceError, Unreadable) as error:
            log.info("the hub has not asked all exits for %s: %s", operation.name, error)
            return {}

    async def ask_each(self, operation: ExitOperation[Q, A], request: Q, without: str) -> Mapping[str, A | None]:
        """Asks all other exits but one themselves, on a hub, in the account's name."""
        found: dict[str, A | None] = {}

        async def ask(node_id: str) -> None:
            answer = await self._one_of_all(node_id, operation, request)
            found[node_id] = answer

        others = [node for node in self.view.standing() if node not in (self.own_id, without)]
        await asyncio.gather(*map(ask, others))
        return found

    async def _one_of_all(self, node_id: str, operation: ExitOperation[Q, A], request: Q) -> A | None:
        if not self.is_there(node_id):
            return None
        try:
            return await self.exits.ask(node_id, operation, request, LIST_S)
        except ApplianceError as error:
            log.info("%s has not answered %s: %s", node_id, operation.name, error)
            return None
