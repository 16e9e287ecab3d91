"""Asks other members for operations, sealed, and serves what they ask: `wga.rpc.<asked>.<asker>.<operation>`."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from typing import TYPE_CHECKING

from appliance.domain.errors import FleetError, NoResponder, NotAnswered, RpcFailed
from appliance.fleet.link.wire import PREFIX
from appliance.fleet.rpc.rpc_messages import Fresh, RpcCode, RpcMessage, decoded, encoded
from appliance.fleet.rpc.seal import NoSuchMember, NotSealed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from appliance.domain.clock import Clock
    from appliance.fleet.link.wire import HubLink, Message
    from appliance.fleet.rpc.seal import Seals

    RpcHandler = Callable[[str, bytes], Awaitable[bytes]]

log = logging.getLogger(__name__)

MOST_BYTES = 240_000  # of a payload: the hub takes 256 KB with what is around it
AT_WORK = 64  # handlers
OF_ONE_SENDER = 32  # requests at work or waiting; more are told that it is busy
CODES = frozenset(RpcCode)


class Rpc:
    """Is one member's end. A handler gets the sender's id and the payload; it may raise RpcFailed to refuse.

    What a handler raises otherwise is logged, and told the asker as FAILED without its text.
    """

    def __init__(self, link: HubLink, own_id: str, seals: Seals, clock: Clock) -> None:
        self._link = link
        self._own_id = own_id
        self._seals = seals
        self._clock = clock
        self._handlers: dict[str, RpcHandler] = {}
        self._started = clock.now()
        self._fresh = Fresh(self._started.wall_ms)
        self._ahead_ms: dict[str, int] = {}  # members' clocks, as far as they are known
        self._turns = asyncio.Semaphore(AT_WORK)
        self._of_sender: Counter[str] = Counter()
        self._refused = 0  # requests

    def register(self, operation: str, handler: RpcHandler) -> None:
        """Serves the operation: a word of a subject. Raises ValueError if it is served already, or is none."""
        if operation in self._handlers or not operation.replace("_", "").isalnum():
            raise ValueError(f"cannot register {operation!r}")
        self._handlers[operation] = handler

    async def start(self) -> None:
        """Begins to serve. Raises NotPermitted."""
        await self._link.subscribe(f"{PREFIX}.rpc.{self._own_id}.>", self._take)

    async def call(self, node_id: str, operation: str, payload: bytes, timeout_s: float) -> bytes:
        """Returns what the member's handler has returned.

        Raises RpcFailed: what it was refused with; NoResponder: it is not connected, or no member; CutOff and
        NotPermitted: it was not asked; NotAnswered: in time, it may have been done.
        """
        if len(payload) > MOST_BYTES:
            raise RpcFailed(RpcCode.TOO_LARGE, f"a request of {len(payload)} bytes is too large")
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        answer = await self._ask(node_id, operation, payload, timeout_s)
        if answer.code == RpcCode.STALE:
            self._ahead_ms[node_id] = answer.at_ms - self._now_ms()
            answer = await self._ask(node_id, operation, payload, max(0.0, until - loop.time()))
        if answer.code:
            code = RpcCode(answer.code) if answer.code in CODES else RpcCode.FAILED
            raise RpcFailed(code, answer.payload.decode(errors="replace"))
        return answer.payload

    async def _ask(self, node_id: str, operation: str, payload: bytes, timeout_s: float) -> RpcMessage:
        at_ms = self._now_ms() + self._ahead_ms.get(node_id, 0)
        wait_ms = int(timeout_s * 1000)
        asked = RpcMessage(
            "ask", secrets.token_bytes(16), self._own_id, node_id, operation, at_ms, payload, wait_ms=wait_ms
        )
        try:
            sealed = self._seals.seal(node_id, encoded(asked))
        except NoSuchMember as error:
            raise NoResponder(str(error)) from error
        data = await self._link.request(f"{PREFIX}.rpc.{node_id}.{self._own_id}.{operation}", sealed, timeout_s)
        try:
            answer = decoded(self._seals.open(node_id, data))
        except (NoSuchMember, NotSealed) as error:
            raise NotAnswered(f"{node_id} could not read the request, or its answer is not its own") from error
        expected = ("answer", asked.id, node_id, self._own_id, operation)
        if answer is None or (answer.kind, answer.id, answer.sender, answer.receiver, answer.operation) != expected:
            raise NotAnswered(f"what came from {node_id} is not the answer to {operation}")
        return answer

    def _now_ms(self) -> int:
        """Returns the wall clock as it was when this began, plus what has passed since: it is never set."""
        return self._started.wall_ms + self._clock.now().boot_ms - self._started.boot_ms

    # Serving -------------------------------------------------------------------------------------------

    async def _take(self, message: Message) -> None:
        try:
            await self._serve(message)
        except (FleetError, NoSuchMember) as error:
            log.info("an answer on %r was not sent: %s", message.subject[:200], error)

    async def _serve(self, message: Message) -> None:
        sender, _, operation = message.subject.removeprefix(f"{PREFIX}.rpc.{self._own_id}.").partition(".")
        # NATS does not check the reply subject: an answer could be made to look like a request of somebody else's.
        if not message.reply.startswith(f"_INBOX_{sender}."):
            self._not_served(message, "it awaits its answer elsewhere")
            return
        try:
            asked = decoded(self._seals.open(sender, message.data))
        except (NoSuchMember, NotSealed) as error:
            self._not_served(message, str(error))
            await message.answer(b"")
            return
        expected = ("ask", sender, self._own_id, operation)
        if asked is None or (asked.kind, asked.sender, asked.receiver, asked.operation) != expected:
            self._not_served(message, "what is sealed in it is something else")
            return
        self._of_sender[sender] += 1
        try:
            code, payload = await self._result(asked, message)
        finally:
            self._of_sender[sender] -= 1
        if code is not None:
            answer = RpcMessage("answer", asked.id, self._own_id, sender, operation, self._now_ms(), payload, code=code)
            await message.answer(self._seals.seal(sender, encoded(answer)))

    def _not_served(self, message: Message, why: str) -> None:
        self._refused += 1
        if self._refused.bit_count() == 1:  # the 1st, 2nd, 4th, 8th…: who sends one can send thousands
            log.warning("a request on %r is not served, the %d. of such: %s", message.subject[:200], self._refused, why)

    async def _result(self, asked: RpcMessage, message: Message) -> tuple[str | None, bytes]:
        """Returns code and payload of the answer. None: nobody waits for it any more."""
        handler = self._handlers.get(asked.operation)
        if handler is None:
            return RpcCode.UNKNOWN_OPERATION, f"this version does not know {asked.operation}".encode()
        if self._of_sender[asked.sender] > OF_ONE_SENDER:
            return RpcCode.BUSY, b"too many requests of one exit at once"
        refusal = self._fresh.refusal(asked, self._now_ms())
        if refusal is not None:
            return refusal, b"the request is not new"
        async with self._turns:
            if self._clock.now().boot_ms - message.arrived_ms > asked.wait_ms:
                return None, b""
            return await _outcome(handler, asked)


async def _outcome(handler: RpcHandler, asked: RpcMessage) -> tuple[str, bytes]:
    try:
        payload = await handler(asked.sender, asked.payload)
    except RpcFailed as error:
        return error.code, str(error).encode()
    except Exception:
        log.exception("the request %r of %s failed", asked.operation, asked.sender)
        return RpcCode.FAILED, b"it failed there: see its log"
    if len(payload) > MOST_BYTES:
        return RpcCode.TOO_LARGE, f"an answer of {len(payload)} bytes is too large".encode()
    return "", payload
