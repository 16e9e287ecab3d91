"""Plays the hubs in memory: gives each node a `HubLink`, and has faults that a test makes by hand.

    bus = Bus()
    ams, fra = bus.node(AMS), bus.node(FRA)     # in the account FLEET, with a spoke's rights
    ledger = bus.hub(FRA)                       # in the account HUB: may do all, and has the streams
    state = bus.stream("STATE", "wga.state.>", max_bytes=1_000_000)
    bus.cut(AMS); bus.heal(AMS)
    bus.lose_requests("wga.rpc.>", times=1)

`tests/support/fleet/link_contract.py` says what it does as the real link does. Handlers that raise are in `failures`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.domain.clock import HostClock
from appliance.domain.errors import CutOff, NoResponder, NotAnswered, NotPermitted, StreamFull

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from appliance.domain.clock import Clock
    from appliance.fleet.link.wire import Message

EXPORTED = ("wga.state.>", "wga.led.>", "wga.join.>")  # by HUB, to FLEET


def matches(pattern: str, subject: str) -> bool:
    """Tells whether NATS delivers `subject` to a subscription of `pattern`."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))


def covers(allowed: str, pattern: str) -> bool:
    """Tells whether the right to subscribe `allowed` is one to subscribe `pattern`, which may have wildcards."""
    wanted, given = allowed.split("."), pattern.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    if len(wanted) != len(given) or ">" in given:
        return False
    return all(w in ("*", g) for w, g in zip(wanted, given, strict=True))


def may_publish(node: str) -> tuple[str, ...]:
    return (f"wga.hb.{node}", f"wga.state.{node}.>", f"wga.led.{node}.>", f"wga.rpc.*.{node}.>")


def may_subscribe(node: str) -> tuple[str, ...]:
    return (f"_INBOX_{node}.>", "wga.hb.*", f"wga.rpc.{node}.>")


@dataclass
class BusStream:
    """Keeps the last message of each subject, as a stream with max_msgs_per_subject 1 and discard new does."""

    subjects: str
    max_bytes: int
    kept: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # by subject: sequence, data
    sequence: int = 0

    def keep(self, subject: str, data: bytes) -> None:
        old = len(self.kept.get(subject, (0, b""))[1])
        used = sum(len(each) for _, each in self.kept.values())
        if len(data) > old and used - old + len(data) > self.max_bytes:
            raise StreamFull(f"no room for {subject}")
        self.sequence += 1
        self.kept[subject] = (self.sequence, data)


@dataclass
class _Fault:
    pattern: str
    times: int

    def strikes(self, subject: str) -> bool:
        if self.times > 0 and matches(self.pattern, subject):
            self.times -= 1
            return True
        return False


class Held:
    """Holds messages on the subjects of `pattern` until `release`. Entered, it releases them at its end."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.waiting: list[Callable[[], None]] = []
        self.released = False

    def release(self) -> None:
        self.released = True
        waiting, self.waiting = self.waiting, []
        for deliver in waiting:
            deliver()

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class BusMessage:
    """Is a message as one subscriber gets it."""

    def __init__(self, link: BusLink, subject: str, data: bytes, reply: str) -> None:
        self.subject = subject
        self.data = data
        self.reply = reply
        self.arrived_ms = link.bus.clock.now().boot_ms
        self._link = link
        self._connection = link.connection
        self._answered = False

    async def answer(self, data: bytes) -> None:
        if not self.reply or self._answered:
            raise NotPermitted(f"the message on {self.subject} awaits no answer")
        if not self._link.connected or self._link.connection != self._connection:
            raise CutOff("the connection by which the request came is lost")
        self._answered = True
        self._link.bus.answered(self._link, self.reply, data)


@dataclass(eq=False)
class _Subscription:
    link: BusLink
    subject: str
    handle: Callable[[Message], Awaitable[None]]
    queue: str


class BusLink:
    """Is one `HubLink` of a node. `unlimited`: it may do all."""

    def __init__(self, bus: Bus, node: str, account: str, unlimited: bool) -> None:
        self.bus = bus
        self.node = node
        self.account = account
        self.unlimited = unlimited
        self.connected = True
        self.silent = False  # what it sends and gets is lost, and it has not noticed
        self.connection = 0  # how often it was lost
        self.asked: dict[str, asyncio.Future[bytes]] = {}

    async def publish(self, subject: str, data: bytes) -> None:
        self._check(subject)
        self.bus.published(self, subject, data, "")

    async def publish_raw(self, subject: str, data: bytes, reply: str) -> None:
        """Sends with any reply subject: NATS does not check it against the sender's rights."""
        self._check(subject)
        self.bus.published(self, subject, data, reply)

    async def keep(self, subject: str, data: bytes, timeout_s: float) -> None:
        await self._ask(subject, data, timeout_s)

    async def request(self, subject: str, data: bytes, timeout_s: float) -> bytes:
        return await self._ask(subject, data, timeout_s)

    async def subscribe(self, subject: str, handle: Callable[[Message], Awaitable[None]], queue: str = "") -> None:
        if not self.unlimited and not any(covers(right, subject) for right in may_subscribe(self.node)):
            raise NotPermitted(f"{self.node} may not subscribe {subject}")
        self.bus.subscriptions.append(_Subscription(self, subject, handle, queue))

    async def _ask(self, subject: str, data: bytes, timeout_s: float) -> bytes:
        self._check(subject)
        reply = self.bus.inbox(self.node)
        future = self.asked[reply] = asyncio.get_running_loop().create_future()
        try:
            self.bus.published(self, subject, data, reply)
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise NotAnswered(f"no answer on {subject} in {timeout_s:g} s") from None
        finally:
            self.asked.pop(reply, None)

    def _check(self, subject: str) -> None:
        if not self.connected:
            raise CutOff("no connection to any hub")
        if not self.unlimited and not any(matches(right, subject) for right in may_publish(self.node)):
            raise NotPermitted(f"{self.node} may not publish {subject}")

    def lose_connection(self) -> None:
        self.connected = False
        self.connection += 1
        for future in self.asked.values():
            if not future.done():
                future.set_exception(NotAnswered("the connection was lost"))


class Bus:
    """Delivers between the links, with the accounts FLEET and HUB apart but for what HUB exports."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or HostClock()
        self.subscriptions: list[_Subscription] = []
        self.failures: list[Exception] = []
        self.sent: list[tuple[str, str, bytes]] = []  # node, subject, data: each message that left a link
        self._links: list[BusLink] = []
        self._streams: dict[str, BusStream] = {}
        self._lost_requests: list[_Fault] = []
        self._lost_answers: list[_Fault] = []
        self._held: list[Held] = []
        self._imported: dict[str, tuple[str, str]] = {}  # reply as HUB sees it -> as sent, its request's subject
        self._replies: dict[str, str] = {}  # reply -> its request's subject
        self._numbers = itertools.count()
        self._turns = itertools.count()
        self._tasks: set[asyncio.Future[None]] = set()

    def node(self, node: str) -> BusLink:
        """Returns a new connection of the exit with a spoke's rights (a hub has one too)."""
        return self._add(BusLink(self, node, "FLEET", unlimited=False))

    def hub(self, node: str = "hub") -> BusLink:
        """Returns a new connection of a hub's own, in the account of ledger and streams."""
        return self._add(BusLink(self, node, "HUB", unlimited=True))

    def _add(self, link: BusLink) -> BusLink:
        self._links.append(link)
        return link

    def stream(self, name: str, subjects: str, max_bytes: int = 16 * 1024 * 1024) -> BusStream:
        """Makes the stream, or returns it."""
        return self._streams.setdefault(name, BusStream(subjects, max_bytes))

    def remove_stream(self, name: str) -> None:
        del self._streams[name]

    # Faults --------------------------------------------------------------------------------------------

    def cut(self, node: str, noticed: bool = True) -> None:
        """Cuts all links of the node off. Not `noticed`: they lose what they send and get, and do not know it."""
        for link in self._links:
            if link.node == node:
                link.silent = True
                if noticed and link.connected:
                    link.lose_connection()

    def heal(self, node: str) -> None:
        """Connects the node's links again; what they subscribed is in force at once."""
        for link in self._links:
            if link.node == node:
                link.silent = False
                link.connected = True

    def lose_requests(self, subjects: str, times: int = 1) -> None:
        """Loses the next messages on these subjects, between sender and subscribers or stream."""
        self._lost_requests.append(_Fault(subjects, times))

    def lose_answers(self, subjects: str, times: int = 1) -> None:
        """Loses the next answers to requests on these subjects: what was asked is done."""
        self._lost_answers.append(_Fault(subjects, times))

    def hold(self, subjects: str) -> Held:
        """Holds messages on these subjects, and answers to requests on them, until they are released."""
        held = Held(subjects)
        self._held.append(held)
        return held

    async def idle(self) -> None:
        """Waits until every handler has returned, and those that they caused."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    # Delivery ------------------------------------------------------------------------------------------

    def published(self, sender: BusLink, subject: str, data: bytes, reply: str) -> None:
        self.sent.append((sender.node, subject, data))
        if sender.silent or any(fault.strikes(subject) for fault in self._lost_requests):
            return
        self._later(subject, lambda: self._deliver(sender, subject, data, reply))

    def answered(self, responder: BusLink, reply: str, data: bytes) -> None:
        """Delivers an answer: to who asked, or to whatever else the reply subject names."""
        sent, request = self._imported.pop(reply, (reply, self._replies.get(reply, "")))
        if responder.silent or any(fault.strikes(request) for fault in self._lost_answers):
            return
        account = responder.account if sent == reply else "FLEET"
        self._later(request, lambda: self._route(account, sent, data, ""))

    def _later(self, subject: str, deliver: Callable[[], None]) -> None:
        for held in self._held:
            if not held.released and matches(held.pattern, subject):
                held.waiting.append(deliver)
                return
        deliver()

    def _deliver(self, sender: BusLink, subject: str, data: bytes, reply: str) -> None:
        if reply:
            self._replies[reply] = subject
        reached = self._route(sender.account, subject, data, reply)
        exported = any(matches(each, subject) for each in EXPORTED)
        if sender.account == "FLEET" and exported:
            reached |= self._route("HUB", subject, data, self._import(reply, subject))
        if sender.account == "HUB" or exported:
            reached |= self._keep(sender, subject, data, reply)
        if not reached and reply:
            self._settle(reply, NoResponder(f"nobody listens on {subject}"))

    def inbox(self, node: str) -> str:
        return f"_INBOX_{node}.{next(self._numbers)}"

    def _import(self, reply: str, subject: str) -> str:
        """Returns the reply subject that stands for `reply` on the other side of an export."""
        if not reply:
            return ""
        name = f"_R_.{next(self._numbers)}"
        self._imported[name] = (reply, subject)
        return name

    def _keep(self, sender: BusLink, subject: str, data: bytes, reply: str) -> bool:
        for name, stream in self._streams.items():
            if matches(stream.subjects, subject):
                try:
                    stream.keep(subject, data)
                except StreamFull as error:
                    self._settle(reply, error)
                    return True
                if reply:
                    self.answered(sender, reply, f'{{"stream":"{name}","seq":{stream.sequence}}}'.encode())
                return True
        return False

    def _route(self, account: str, subject: str, data: bytes, reply: str) -> bool:
        """Delivers within the account; tells whether there was a subscriber."""
        for link in self._links:
            future = link.asked.get(subject)
            if future is not None and link.account == account:
                if not link.silent and not future.done():
                    future.set_result(data)
                return True
        plain, queues = [], dict[tuple[str, str], deque[_Subscription]]()
        for each in self.subscriptions:
            if each.link.account == account and each.link.connected and matches(each.subject, subject):
                if each.queue:
                    queues.setdefault((each.subject, each.queue), deque()).append(each)
                else:
                    plain.append(each)
        for members in queues.values():
            members.rotate(next(self._turns))
            plain.append(members[0])
        for each in plain:
            if not each.link.silent:
                self._start(each, BusMessage(each.link, subject, data, reply))
        return bool(plain)

    def _settle(self, reply: str, error: Exception) -> None:
        for link in self._links:
            future = link.asked.get(reply)
            if future is not None and not link.silent and not future.done():
                future.set_exception(error)

    def _start(self, subscription: _Subscription, message: BusMessage) -> None:
        async def handle() -> None:
            try:
                await subscription.handle(message)
            except Exception as error:  # noqa: BLE001 (a handler's error ends nothing but that message)
                self.failures.append(error)

        task = asyncio.ensure_future(handle())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
