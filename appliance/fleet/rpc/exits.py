"""Asks other exits: encodes what is asked, decodes what is answered, raises what was refused there."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from appliance.domain.errors import CutOff, FleetError, NoResponder, NotAnswered, NotKnown, NotPermitted, RpcFailed
from appliance.fleet.link.reading import Unreadable, read
from appliance.fleet.rpc.failures import error_of
from appliance.fleet.rpc.operations import OperationReply
from appliance.fleet.rpc.rpc_messages import RpcCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.fleet.rpc.operations import ExitOperation

Q = TypeVar("Q")
A = TypeVar("A")

AT_ONCE = 24  # of one exit: it tells one that asks more at once that it is busy

log = logging.getLogger(__name__)


class Call(Protocol):
    """Sends a request to another exit, sealed."""

    async def __call__(self, node_id: str, operation: str, payload: bytes, timeout_s: float) -> bytes:
        """Returns the answer.

        Raises NoResponder: it is not there; CutOff, NotPermitted: nothing was sent; NotAnswered: it may have been done.
        """
        ...


class FleetView(Protocol):
    """Tells how the exits of the fleet stand, as this one knows."""

    def candidates(self, region: str) -> Sequence[str]:
        """Returns the ids of the exits to ask for a session there, the first one first.

        Raises NoActiveNodes or NoActiveNodeInRegion.
        """
        ...

    def regions(self) -> list[tuple[str, int]]:
        """Returns (code, number of active exits) of every region that has one."""
        ...

    def standing(self) -> dict[str, bool]:
        """Returns the ids of all exits of the fleet, this one too, and whether each is there to be asked."""
        ...

    def heard_for_s(self, node_id: str) -> float:
        """Returns for how much longer another exit is alive, if nothing more is heard of it; at most 0: it is dead."""
        ...


class Exits:
    """Asks other exits for what `operations` names."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))

    async def ask(
        self, node_id: str, operation: ExitOperation[Q, A], request: Q, timeout_s: float, region: str = ""
    ) -> A:
        """Returns the answer. `region`: which one a refusal names.

        Raises FleetError, as Call does, or the error with which the other exit has refused.
        """
        return self.answer_of(
            operation, await self.send(node_id, operation.name, msgspec.json.encode(request), timeout_s), region
        )

    async def send(self, node_id: str, operation: str, payload: bytes, timeout_s: float) -> bytes:
        """Returns what the other exit has answered, as it is. Raises as Call does, in time whatever the link does."""
        until, asked = asyncio.get_running_loop().time() + timeout_s, False
        try:
            async with asyncio.timeout_at(until), self._turns[node_id]:
                asked = True
                return await self._call(node_id, operation, payload, until - asyncio.get_running_loop().time())
        except (NoResponder, CutOff, NotPermitted, NotAnswered):
            raise
        except TimeoutError as error:
            if not asked:
                raise NoResponder(f"{node_id} has too much to answer") from error
            raise NotAnswered(f"{node_id} has not answered {operation} in time") from error
        except FleetError as error:  # refused on the way: it is not known what was done
            if isinstance(error, RpcFailed) and error.code == RpcCode.UNKNOWN_OPERATION:
                raise NotKnown(f"{node_id} is of a version without {operation}") from error
            raise NotAnswered(f"{node_id} has not served {operation}: {error}") from error

    def answer_of(self, operation: ExitOperation[Q, A], data: bytes, region: str = "") -> A:
        """Reads an answer. Raises what the other exit has refused with; NotAnswered: it is none."""
        try:
            reply = read(data, OperationReply)
            if reply.failure is None:
                return read(reply.result, operation.answer)
        except Unreadable as error:
            log.warning("an exit's answer to %s cannot be read: %s", operation.name, error)
            raise NotAnswered(f"the answer to {operation.name} cannot be read") from error
        raise error_of(reply.failure, region)
