"""Describes what members send each other by rpc, and decides whether a request is new. Pure.

A request says when it was sent, by the clock of the member that is asked: what is older than some seconds is refused,
and ids are remembered for so long. The asker guesses that clock by its own; if that is refused, the answer says what
the clock is, and it asks once more. So no two clocks need to agree, and nothing has to be stored.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import StrEnum
from typing import Annotated, Literal

import msgspec

FRESH_MS = 10_000
AHEAD_MS = 1000  # less than it takes to start again, and to have forgotten what was seen
MOST_SEEN = 20_000  # of one member: one that asks all the time is busy for itself alone

Id = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class RpcCode(StrEnum):
    BUSY = "busy"
    STALE = "stale"  # the asker guessed the clock wrongly; it asks again by itself
    UNKNOWN_OPERATION = "unknown_operation"
    TOO_LARGE = "too_large"
    INVALID = "invalid"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"


class RpcMessage(msgspec.Struct, frozen=True, array_like=True):
    """Is what is sealed. `at_ms`: the asked member's clock; `wait_ms`: how long the asker waits; `code`: "" is success.

    Operation, sender and receiver stand in the subject too, where a hub could change them.
    """

    kind: Literal["ask", "answer"]
    id: Id
    sender: str
    receiver: str
    operation: str
    at_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    payload: bytes
    wait_ms: int = 0
    code: str = ""


def encoded(message: RpcMessage) -> bytes:
    return msgspec.msgpack.encode(message)


def decoded(data: bytes) -> RpcMessage | None:
    """Returns None for what is no such message."""
    try:
        return msgspec.msgpack.decode(data, type=RpcMessage)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


class Fresh:
    """Tells which requests are new. `started_ms`: what came before was for a process that knew other ids."""

    def __init__(self, started_ms: int) -> None:
        self._started_ms = started_ms
        self._seen: dict[str, OrderedDict[bytes, int]] = {}  # by sender: id -> when it was seen

    def refusal(self, message: RpcMessage, now_ms: int) -> RpcCode | None:
        """Returns None if it is new, and remembers it. REFUSED: it was here before."""
        seen = self._seen.setdefault(message.sender, OrderedDict())
        while seen and now_ms - next(iter(seen.values())) > 2 * FRESH_MS:
            seen.popitem(last=False)
        if message.at_ms < self._started_ms or not -AHEAD_MS <= now_ms - message.at_ms <= FRESH_MS:
            return RpcCode.STALE
        if message.id in seen:
            return RpcCode.REFUSED
        if len(seen) >= MOST_SEEN:
            return RpcCode.BUSY
        seen[message.id] = now_ms
        return None
