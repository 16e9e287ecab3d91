"""Keeps a connection to one of the hubs, for ever: the `HubLink` of wire over nats-py.

    link = NatsLink(hubs, user, clock, changed)
    link.start()
    await link.wait_connected(5)    # optional: raises ConnectFailed with what keeps it
    …
    await link.close()

Each connection is a client of its own, and what a lost one had not sent is dropped with it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import msgspec

from appliance.domain.errors import ConnectFailed, CutOff, NotAnswered, NotPermitted, StreamFull
from appliance.fleet.link.connect_failure import LASTING, Hindrance
from appliance.fleet.link.hub_connection import GOODBYE_S, HubConnection
from appliance.fleet.link.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats.js import JetStreamContext

    from appliance.domain.clock import Clock, Moment
    from appliance.fleet.link.nats_client import Hub, LinkUser
    from appliance.fleet.link.wire import Message

log = logging.getLogger(__name__)

PAUSE_S = 0.5  # before the next try
LEFT_EACH_MS = 20_000  # how often a hub is given up for another, which may be away
LASTING_PAUSE_S = 5.0  # where a person has to do something first

# https://github.com/nats-io/nats-server/blob/main/server/errors.json: maximum bytes or messages exceeded, insufficient
# storage or resources, message larger than the stream takes
FULL = {10077, 10047, 10023, 10054}


@dataclass(frozen=True, slots=True)
class LinkState:
    """Says whether there is a connection, since when, to which hub; if none, what kept the last try from it."""

    connected: bool
    since: Moment
    hub: str = ""
    failure: ConnectFailed | None = None


class _StreamError(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _StreamAnswer(msgspec.Struct):
    stream: str = ""
    error: _StreamError | None = None


class HubsOf(Protocol):
    """Returns the hubs to dial, at each try anew: at least one."""

    def __call__(self) -> tuple[Hub, ...]: ...


def hub_tls(ca: str | bytes) -> ssl.SSLContext:
    """Returns what trusts the fleet's CA (PEM or DER) alone, or both while one follows the other.

    Raises ValueError if it is no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cadata=ca)
    except ssl.SSLError as error:
        raise ValueError("the fleet's CA is no certificate") from error
    return context


class NatsLink:
    """Is the `HubLink` of one user. `changed` is told of each change of `state`; it must not raise."""

    def __init__(
        self, hubs: HubsOf, user: LinkUser, clock: Clock, changed: Callable[[LinkState], None] = lambda _state: None
    ) -> None:
        self._hubs = hubs
        self._user = user
        self._clock = clock
        self._changed = changed
        self._connection: HubConnection | None = None
        self._subscriptions: list[Subscription] = []
        self._settled = asyncio.Event()  # connected
        self._left_ms: int | None = None  # when a hub was last given up for another, CLOCK_BOOTTIME
        self._told: set[str] = set()  # reasons that are in the log, of this cut
        self._keeping: asyncio.Task[None] | None = None
        self.state = LinkState(connected=False, since=clock.now())

    @property
    def connected(self) -> bool:
        return self._connection is not None and not self._connection.lost.is_set()

    def start(self) -> None:
        """Begins to connect, and to connect again whenever the connection is lost."""
        self._keeping = asyncio.create_task(self._keep_connected())

    def trust(self, ca: str) -> None:
        """Trusts this CA (PEM) from the next connection on. Raises ValueError if it is no certificate."""
        self._user = replace(self._user, tls=hub_tls(ca))

    async def wait_connected(self, timeout_s: float) -> None:
        """Waits for a connection. Raises ConnectFailed: what kept the last try from it."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()
        except TimeoutError:
            silent = ConnectFailed(Hindrance.SILENT, f"no hub has answered in {timeout_s:g} s")
            raise (self.state.failure or silent) from None

    def dial_another(self) -> None:
        """Gives the present connection up, to try the next hub; not if this one is the only one, nor all the time."""
        now_ms = self._clock.now().boot_ms
        again = self._left_ms is None or now_ms - self._left_ms >= LEFT_EACH_MS
        if again and self._connection is not None and len(self._hubs()) > 1:
            self._left_ms = now_ms
            self._connection.cut()

    async def close(self, goodbye_s: float = GOODBYE_S) -> None:
        """Sends what is still to be sent, within this time, and ends connection, tasks and handlers."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        if self._connection is not None:
            await self._connection.close(goodbye_s)
        self._connection = None
        self._settled.clear()
        self.state = LinkState(connected=False, since=self._clock.now())
        for subscription in self._subscriptions:
            await subscription.close()

    # HubLink -------------------------------------------------------------------------------------------

    async def publish(self, subject: str, data: bytes) -> None:
        await self._present().publish(subject, data)

    async def request(self, subject: str, data: bytes, timeout_s: float) -> bytes:
        return await self._present().ask(subject, data, timeout_s)

    async def keep(self, subject: str, data: bytes, timeout_s: float) -> None:
        answer = await self._present().ask(subject, data, timeout_s)
        try:
            kept = msgspec.json.decode(answer, type=_StreamAnswer)
        except msgspec.MsgspecError as error:
            raise NotAnswered(f"no stream answered on {subject}") from error
        if kept.error is not None and kept.error.err_code in FULL:
            raise StreamFull(f"the stream of {subject} is full: {kept.error.description}")
        if kept.error is not None or not kept.stream:
            said = kept.error.description if kept.error else "nothing"
            raise NotAnswered(f"the stream of {subject} has not kept the message: {said}")

    async def subscribe(self, subject: str, handle: Callable[[Message], Awaitable[None]], queue: str = "") -> None:
        subscription = Subscription(subject, queue, handle, self._clock)
        self._subscriptions.append(subscription)
        connection = self._connection
        if connection is None:
            return
        try:
            await connection.subscribe(subject, queue, subscription.taking(connection))
            await connection.settle()
        except CutOff:
            return
        except NotPermitted:
            self._subscriptions.remove(subscription)
            raise
        if connection.refused("subscription", subject):
            self._subscriptions.remove(subscription)
            raise NotPermitted(f"the hub refuses the subscription of {subject}")

    def jetstream(self) -> JetStreamContext:
        """Returns nats-py's own, of the present connection and good only as long as that. Raises CutOff."""
        return self._present().client.jetstream()

    def _present(self) -> HubConnection:
        if self._connection is None or self._connection.lost.is_set():
            raise CutOff("there is no connection to any hub")
        return self._connection

    # Connecting ----------------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        for number in itertools.count():
            pause = PAUSE_S
            try:
                hubs = self._hubs()
                connection = await self._connect(hubs[number % len(hubs)])
                await connection.lost.wait()
                self._cut_off(None)
                await connection.close()
            except ConnectFailed as failure:
                self._cut_off(failure)
                pause = LASTING_PAUSE_S if failure.reason in LASTING else PAUSE_S
            except CutOff:
                self._cut_off(None)
            except Exception:  # no fault of one try is one of the next
                log.exception("cannot connect to the hubs")
            await asyncio.sleep(pause)

    async def _connect(self, hub: Hub) -> HubConnection:
        connection = await HubConnection.dial(self._user, hub, self._clock)
        try:
            subscribed = set[Subscription]()
            while missing := [
                each for each in self._subscriptions if each not in subscribed
            ]:  # more may come meanwhile
                for each in missing:
                    await connection.subscribe(each.subject, each.queue, each.taking(connection))
                subscribed.update(missing)
                await connection.settle()
            if connection.lost.is_set():
                raise CutOff("the connection was lost at once")
        except BaseException:
            connection.cut()
            await connection.close()
            raise
        self._connection = connection
        self._settled.set()
        self._told.clear()
        log.info("connected to the hub %s", hub.address)
        self._set(LinkState(connected=True, since=self._clock.now(), hub=hub.address))
        return connection

    def _cut_off(self, failure: ConnectFailed | None) -> None:
        self._connection = None
        self._settled.clear()
        if self.state.connected:
            log.warning("cut off from the hub %s", self.state.hub)
            self._set(LinkState(connected=False, since=self._clock.now(), failure=failure))
        elif failure is not None and (self.state.failure is None or self.state.failure.reason != failure.reason):
            if failure.reason not in self._told:
                log.warning("%s", failure)
                self._told.add(failure.reason)
            self._set(LinkState(connected=False, since=self.state.since, failure=failure))

    def _set(self, state: LinkState) -> None:
        self.state = state
        self._changed(state)
