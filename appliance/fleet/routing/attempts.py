"""Asks one exit after another for something new: under one deadline, twice where no answer comes, and takes it back."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, TypeVar

from appliance.domain.errors import (
    CutOff,
    NoActiveNodeInRegion,
    NoActiveNodes,
    NoResponder,
    NotAnswered,
    NotPermitted,
    PeerApplyFailed,
    StoreUnavailable,
    SubnetExhausted,
)
from appliance.fleet.rpc.operations import TakeBack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from typing import Any

    from appliance.fleet.rpc.exits import Exits, FleetView
    from appliance.fleet.rpc.intents import Intents
    from appliance.fleet.rpc.operations import ExitOperation

T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")

log = logging.getLogger(__name__)

MOST_TRIED = 2
FIRST_SHARE = 0.6  # of the time that is left, for the first of two times that the same is asked
SHARES = (FIRST_SHARE, 1.0)

# What one exit says for itself: another one may do it.
_NEXT = (NoActiveNodes, NoActiveNodeInRegion, SubnetExhausted, StoreUnavailable)


def new_op() -> str:
    """Makes the number of an operation: nobody else can take it back."""
    return secrets.token_hex(16)


class Placing:
    """Has something made on an exit of a region. `patience_s`: for all of it."""

    def __init__(self, *, own_id: str, view: FleetView, exits: Exits, intents: Intents, patience_s: float) -> None:
        self._own_id = own_id
        self._view = view
        self._exits = exits
        self._intents = intents
        self._patience_s = patience_s
        self._later: set[asyncio.Task[None]] = set()

    async def place(
        self,
        region: str,
        here: Callable[[str], Awaitable[T]],
        there: Callable[[str, str, float], Coroutine[Any, Any, T]],
    ) -> T:
        """Returns what `here` makes under an op, or `there` on another exit, under an op and in so many seconds.

        Raises NoActiveNodes or NoActiveNodeInRegion: there is no exit to ask. Raises PeerApplyFailed: none has
        answered; or what the last one has refused with.
        """
        refusal: Exception = PeerApplyFailed()
        deadline = asyncio.get_running_loop().time() + self._patience_s
        for node_id in self._candidates(region):
            op = new_op()
            try:
                if node_id == self._own_id:
                    return await here(op)
                return await self._there(node_id, op, there, deadline)
            except _NEXT as error:
                refusal = error
            except (NoResponder, CutOff, NotPermitted) as error:
                log.info("%s is not there: %s", node_id, error)
                refusal = PeerApplyFailed()
            if asyncio.get_running_loop().time() >= deadline:
                break
        raise self._told(region, refusal)

    def _candidates(self, region: str) -> Sequence[str]:
        return self._view.candidates(region)[:MOST_TRIED]

    async def _there(
        self, node_id: str, op: str, there: Callable[[str, str, float], Coroutine[Any, Any, T]], deadline: float
    ) -> T:
        """Asks one exit, and once more with the same op if no answer comes. Has it undone if none has come then.

        Raises NoActiveNodes: it is not there any more.
        """
        for share in SHARES:
            try:
                return await self._while_heard(node_id, there(node_id, op, self._left(deadline) * share))
            except NotAnswered as error:
                if not self._view.standing().get(node_id, False):
                    # It has died meanwhile: another exit may be asked.
                    await self._intents.take_back(node_id, TakeBack(op))
                    raise NoActiveNodes from error
                refusal: Exception = error
                log.info("%s has not answered: %s", node_id, error)
            except (NoResponder, CutOff, NotPermitted) as error:
                if share == FIRST_SHARE:
                    raise
                refusal = error
            except asyncio.CancelledError:
                self._take_back_later(node_id, op)
                raise
        # The first time it may have been there: another exit would make a second one.
        await self._intents.take_back(node_id, TakeBack(op))
        raise PeerApplyFailed from refusal

    async def _while_heard(self, node_id: str, asking: Coroutine[Any, Any, T]) -> T:
        """Returns the answer. Raises NotAnswered if the exit dies meanwhile: no client waits for what cannot come."""
        if self._view.heard_for_s(node_id) <= 0:  # nothing was heard of it yet
            return await asking
        answer = asyncio.create_task(asking)
        try:
            while (left_s := self._view.heard_for_s(node_id)) > 0:
                await asyncio.wait((answer,), timeout=left_s)
                if answer.done():
                    return answer.result()
            raise NotAnswered(f"{node_id} is not heard any more")
        finally:
            answer.cancel()

    def _take_back_later(self, node_id: str, op: str) -> None:
        task = asyncio.create_task(self._intents.take_back(node_id, TakeBack(op)))
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    def _left(self, deadline: float) -> float:
        return max(0.05, deadline - asyncio.get_running_loop().time())

    def _told(self, region: str, refusal: Exception) -> Exception:
        """Returns what the client is told: the fleet's regions, where an exit has spoken of its own."""
        if isinstance(refusal, NoActiveNodes | NoActiveNodeInRegion):
            available = tuple(code for code, _ in self._view.regions() if code != region)
            return NoActiveNodeInRegion(region, available) if available else NoActiveNodes()
        return refusal

    async def twice(
        self, node_id: str, operation: ExitOperation[Q, A], request: Q, timeout_s: float, **named: Any
    ) -> A:
        """Asks what may be asked again without harm: once more where no answer comes. Raises PeerApplyFailed then."""
        deadline = asyncio.get_running_loop().time() + timeout_s

        async def ask(share: float) -> A:
            asking = self._exits.ask(node_id, operation, request, self._left(deadline) * share, **named)
            return await self._while_heard(node_id, asking)

        try:
            try:
                return await ask(FIRST_SHARE)
            except NotAnswered as error:
                log.info("%s is asked again: %s", node_id, error)
            return await ask(1.0)
        except (NotAnswered, NoResponder, CutOff, NotPermitted) as error:
            raise PeerApplyFailed from error
