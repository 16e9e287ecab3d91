"""Is one connection to a hub, from dialing to its loss: sends, asks, and notices in seconds that the hub is silent."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import nats.errors

from appliance.domain.errors import CutOff, NoResponder, NotAnswered, NotPermitted
from appliance.fleet.link.connect_failure import connect_failed
from appliance.fleet.link.nats_client import HubClient
from appliance.sessions.stopping import pause

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats.aio.msg import Msg

    from appliance.domain.clock import Clock
    from appliance.fleet.link.nats_client import Hub, LinkUser

log = logging.getLogger(__name__)

PING_EVERY_S = 2.0
PONG_WITHIN_S = 4.0
REFUSED_FOR_S = 10.0  # what the hub refused is not sent again so long: rights change without a new connection
MOST_REFUSED = 100  # subjects that are remembered
MOST_QUEUED, MOST_QUEUED_BYTES = 8192, 16 * 1024 * 1024  # of a subscription, before messages are dropped
GOODBYE_S = 1.0

NO_RESPONDERS = "503"  # https://docs.nats.io/reference/reference-protocols/nats-protocol#no-responders
_TO = {"publish": "to send on", "subscription": "to listen on"}
VIOLATION = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"')


@dataclass(slots=True)
class _Question:
    subject: str
    answer: asyncio.Future[bytes]


class HubConnection:
    """Is made by `dial`. `lost` is set once, and then nothing is sent or received any more."""

    def __init__(self, user: LinkUser) -> None:
        self.client = HubClient(user, self._error, self.cut)
        self.lost = asyncio.Event()
        self._inbox = f"{user.inbox}.{secrets.token_hex(8)}"
        self._questions: dict[str, _Question] = {}  # by reply subject
        self._refused: OrderedDict[tuple[str, str], float] = OrderedDict()  # kind and subject in lower case -> when
        self._watching: asyncio.Task[None] | None = None
        self._pinging: set[asyncio.Task[None]] = set()

    @classmethod
    async def dial(cls, user: LinkUser, hub: Hub, clock: Clock) -> HubConnection:
        """Connects. Raises ConnectFailed."""
        connection = cls(user)
        await connection.client.dial(hub, clock)
        connection._watching = asyncio.create_task(connection._watch())
        try:
            await connection.client.subscribe(f"{connection._inbox}.*", cb=connection._answered)
        except nats.errors.Error as error:
            await connection.close()
            lost = ConnectionResetError("the connection was lost at once")
            raise connect_failed(lost, hub.address, hub.server_name, clock.now()) from error
        return connection

    # Sending -------------------------------------------------------------------------------------------

    async def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        """Raises CutOff, NotPermitted."""
        if self.lost.is_set():
            raise CutOff("the connection to the hub is lost")
        self._check_refused(subject)
        try:
            await self.client.publish(subject, data, reply=reply)
        except nats.errors.MaxPayloadError:
            raise NotPermitted(f"{len(data)} bytes are more than the hub takes") from None
        except nats.errors.BadSubjectError:
            raise NotPermitted(f"{subject!r} is no subject") from None
        except nats.errors.Error as error:
            raise CutOff("the connection to the hub is lost") from error

    async def ask(self, subject: str, data: bytes, timeout_s: float) -> bytes:
        """Returns the answer. Raises CutOff: not sent; NotPermitted, NoResponder, NotAnswered."""
        # Not to be guessed: whoever may send to a hub at all may name any subject for the answer, this one too.
        reply = f"{self._inbox}.{secrets.token_hex(16)}"
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._questions[reply] = _Question(subject, answer)
        try:
            await self.publish(subject, data, reply)
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise NotAnswered(f"no answer on {subject} in {timeout_s:g} s") from None
        finally:
            del self._questions[reply]

    async def _answered(self, message: Msg) -> None:
        question = self._questions.get(message.subject)
        if question is None or question.answer.done():
            return
        if not message.data and message.headers and message.headers.get("Status") == NO_RESPONDERS:
            question.answer.set_exception(NoResponder(f"nobody listens on {question.subject}"))
        else:
            question.answer.set_result(message.data)

    # Receiving -----------------------------------------------------------------------------------------

    async def subscribe(self, subject: str, queue: str, take: Callable[[Msg], Awaitable[None]]) -> None:
        """Sends the subscription; whether it is in force says `settle`. Raises CutOff, NotPermitted: not a subject."""
        try:
            await self.client.subscribe(
                subject,
                queue=queue,
                cb=take,
                pending_msgs_limit=MOST_QUEUED,
                pending_bytes_limit=MOST_QUEUED_BYTES,
            )
        except nats.errors.BadSubjectError:
            raise NotPermitted(f"{subject!r} is no subject") from None
        except nats.errors.Error as error:
            raise CutOff("the connection to the hub is lost") from error

    async def settle(self) -> None:
        """Waits until the hub has taken what was sent, and said what it refused. Returns early if it is lost."""
        # A first ping overtakes what nats-py has not written yet; a second follows it.
        for _ in range(2):
            await self._ping()

    def refused(self, kind: Literal["publish", "subscription"], subject: str) -> bool:
        """Tells whether the hub has said that it refuses this, of late."""
        return (kind, subject.lower()) in self._refused

    # The end -------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Gives the connection up; `close` ends it. What is awaited is not answered any more."""
        if not self.lost.is_set():
            self.lost.set()
            for question in self._questions.values():
                if not question.answer.done():
                    lost = f"the connection to the hub was lost before the answer on {question.subject}"
                    question.answer.set_exception(NotAnswered(lost))
            self.client.give_up()

    async def close(self, goodbye_s: float = GOODBYE_S) -> None:
        """Sends what is still to be sent, in bounded time, unless it is lost; ends the connection."""
        try:
            if not self.lost.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(goodbye_s):
                        await self.settle()
        finally:
            self.cut()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await self.client.cut()
        for pinging in self._pinging:
            pinging.cancel()

    async def _watch(self) -> None:
        while not self.lost.is_set():
            await pause(PING_EVERY_S)
            await self._ping()

    async def _ping(self) -> None:
        """Waits for the hub to answer a ping. Gives the connection up if it does not."""
        if self.lost.is_set():
            return
        # nats-py's reader dies of the answer to a ping that was given up: such a connection is of no use any more, so
        # the ping goes on where its caller does not.
        pinging = asyncio.create_task(self.client.flush(timeout=int(2 * PONG_WITHIN_S)))
        self._pinging.add(pinging)
        pinging.add_done_callback(self._pinged)
        lost = asyncio.create_task(self.lost.wait())
        try:
            await asyncio.wait([pinging, lost], timeout=PONG_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
        if not pinging.done():
            await asyncio.sleep(0.05)  # where this process stood still, the answer may be here, and not read yet
        if not pinging.done() or pinging.cancelled() or pinging.exception() is not None:
            self.cut()

    def _pinged(self, task: asyncio.Task[None]) -> None:
        self._pinging.discard(task)
        if not task.cancelled():
            task.exception()  # taken, where nobody waits for it any more

    # Errors --------------------------------------------------------------------------------------------

    async def _error(self, error: Exception) -> None:
        found = VIOLATION.search(str(error).lower())
        if found is None:
            log.debug("the connection to the hub: %s", error)
            return
        kind, subject = found.groups()
        if (kind, subject) not in self._refused:
            # An answer comes too late: others decide how often.
            level = logging.DEBUG if subject.startswith("_inbox") else logging.WARNING
            log.log(level, "the hub refuses this host %s %r", _TO[kind], subject)
        self._refused[kind, subject] = asyncio.get_running_loop().time()
        self._refused.move_to_end((kind, subject))
        if len(self._refused) > MOST_REFUSED:
            self._refused.popitem(last=False)
        if kind == "publish":
            self._fail_questions(subject)

    def _fail_questions(self, subject: str) -> None:
        for question in self._questions.values():
            if question.subject.lower() == subject and not question.answer.done():
                question.answer.set_exception(NotPermitted(f"the hub refuses messages on {question.subject}"))

    def _check_refused(self, subject: str) -> None:
        at = self._refused.get(("publish", subject.lower()))
        if at is not None and asyncio.get_running_loop().time() - at < REFUSED_FOR_S:
            raise NotPermitted(f"the hub refuses messages on {subject}")
