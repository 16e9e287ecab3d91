"""Asks all exits for an account on a hub, for the APIs of exits: none but the hub is shown the client's token.

Each exit would be shown it else by each list, also one that the client never had a session on, and that was stolen.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import msgspec

from appliance.domain.errors import ApplianceError, InvalidRequest
from appliance.fleet.link.reading import Unreadable, read
from appliance.fleet.rpc.operations import (
    DEVICE_LIST,
    DEVICE_PLACE,
    LIST,
    USAGE,
    AllAnswers,
    AskAll,
    DevicesOf,
    ExitOperation,
    SessionsOf,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from appliance.fleet.accounts.accounts_here import AccountsHere
    from appliance.fleet.routing.elsewhere import Elsewhere

log = logging.getLogger(__name__)

RELAYED: Mapping[str, ExitOperation[Any, Any]] = {each.name: each for each in (LIST, DEVICE_LIST, DEVICE_PLACE, USAGE)}
MOST = 200  # sessions or devices of an answer, as of one exit's


class HubRelay:
    """Asks them, and this host too: `here` is asked as other exits ask it."""

    def __init__(
        self, elsewhere: Elsewhere, accounts: AccountsHere, here: Callable[[str, str, bytes], Awaitable[bytes]]
    ) -> None:
        self._elsewhere = elsewhere
        self._accounts = accounts
        self._here = here

    async def ask_all(self, sender: str, asked: AskAll) -> AllAnswers:
        """Asks all exits but the one that asks. Raises InvalidToken, or InvalidRequest: that is not for all exits."""
        account = await self._accounts.of_token(asked.token)
        operation = RELAYED.get(asked.operation)
        if operation is None:
            raise InvalidRequest("all exits are asked for lists and figures alone")
        try:
            request = read(asked.request, operation.request)
        except Unreadable as error:
            raise InvalidRequest(f"{operation.name} cannot be read") from error
        request = msgspec.structs.replace(request, token="", for_account=account.id)
        own, others = await asyncio.gather(
            self._own(operation, request), self._elsewhere.ask_each(operation, request, without=sender)
        )
        answers = {**others, self._elsewhere.own_id: own}
        told = {node: each for node, each in answers.items() if each is not None}
        limit = max(1, min(getattr(request, "limit", MOST), MOST))
        kept = shortened(told, limit, self._elsewhere.may_tell)
        return AllAnswers({node: msgspec.Raw(msgspec.json.encode(each)) for node, each in kept.items()})

    async def _own(self, operation: ExitOperation[Any, Any], request: msgspec.Struct) -> msgspec.Struct | None:
        own_id = self._elsewhere.own_id
        data = await self._here(own_id, operation.name, msgspec.json.encode(request))
        try:
            answer: msgspec.Struct = self._elsewhere.exits.answer_of(operation, data)
        except ApplianceError as error:
            log.info("this exit does not tell %s: %s", operation.name, error)
            return None
        return answer


def shortened(
    answers: Mapping[str, msgspec.Struct], limit: int, may_tell: Callable[[str, str], bool]
) -> dict[str, msgspec.Struct]:
    """Returns the answers with no more sessions, or devices, in all than the list may have: they go into one message.

    `may_tell`: whether an exit may list something by this id as its own.
    """
    items = [
        (each.created_at, each.id, node)
        for node, answer in answers.items()
        for each in _listed(answer)
        if may_tell(node, each.id)
    ]
    kept = {(node, id_) for _, id_, node in sorted(items, reverse=True)[:limit]}

    def of(node: str, answer: msgspec.Struct) -> msgspec.Struct:
        if isinstance(answer, SessionsOf):
            return SessionsOf([each for each in answer.sessions if (node, each.id) in kept])
        if isinstance(answer, DevicesOf):
            return DevicesOf([each for each in answer.devices if (node, each.id) in kept])
        return answer

    return {node: of(node, answer) for node, answer in answers.items()}


def _listed(answer: msgspec.Struct) -> list[Any]:
    if isinstance(answer, SessionsOf):
        return [*answer.sessions]
    return [*answer.devices] if isinstance(answer, DevicesOf) else []
