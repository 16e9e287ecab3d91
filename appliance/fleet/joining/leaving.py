"""Takes a host out of the fleet: the host asks, the hub lets it in no more."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from appliance.domain.errors import ConnectFailed, FleetError, NotAnswered, StoreUnavailable
from appliance.fleet.hub.config import member_inbox
from appliance.fleet.link.connect_failure import Hindrance
from appliance.fleet.link.hub_connection import HubConnection
from appliance.fleet.link.link import NatsLink, hub_tls
from appliance.fleet.link.nats_client import LinkUser
from appliance.fleet.link.nkey import NKey
from appliance.fleet.link.reading import Unreadable, read
from appliance.fleet.link.wire import PREFIX
from appliance.store.queries import fleet_members, fleet_partings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from appliance.domain.clock import Clock
    from appliance.fleet.link.wire import HubLink, Message
    from appliance.fleet.membership.identity import FleetFolder, HubAddress, Membership, NodeKeys
    from appliance.store.database import Store

log = logging.getLogger(__name__)

CONNECT_S, ANSWER_S = 10.0, 5.0


class LeaveAnswer(msgspec.Struct, frozen=True):
    """Answers a host that leaves. `refused`: why it stays in the fleet; empty: it has left."""

    refused: str = ""


async def _nothing(_node: str) -> None:
    """Is for a hub that folds no reports."""


class LeaveDesk:
    """Answers hosts that leave, on a hub. Its nats-server lets them in no more from HubUpkeep's next look on.

    `catch_up`: reads what the host has reported, which nobody reads once it has left.
    """

    def __init__(self, store: Store, clock: Clock, catch_up: Callable[[str], Awaitable[object]] = _nothing) -> None:
        self._store = store
        self._clock = clock
        self._catch_up = catch_up

    async def listen(self, link: HubLink) -> None:
        """Begins to answer, on the hub's own link. Raises what `subscribe` does."""
        await link.subscribe(subject("*"), self._answer, "ledger")

    async def _answer(self, message: Message) -> None:
        node_id = message.subject.split(".")[2]
        await message.answer(msgspec.json.encode(await self.answered(node_id)))

    async def answered(self, node_id: str) -> LeaveAnswer:
        """Notes that a host has left. The id is the subject's, which that host alone may ask. Does not raise."""
        try:
            await self._catch_up(node_id)
            async with self._store.write() as db:
                member = await fleet_members.by_id(db, node_id)
                if member is not None and member.role == "hub":
                    return LeaveAnswer("it is a hub")
                now = self._clock.now().wall_ms
                await fleet_members.mark_left(db, node_id, now)
                await fleet_partings.note(db, node_id, fleet_partings.LEFT, now)
        except FleetError as error:
            log.warning("%s cannot leave the fleet before its last reports are read: %s", node_id, error)
            return LeaveAnswer("the hub has not read its last reports yet")
        except StoreUnavailable as error:
            log.warning("%s cannot leave the fleet: %s", node_id, error)
            return LeaveAnswer("the hub's store does not take it now")
        log.info("%s has left the fleet", node_id if member is None else member.name)
        return LeaveAnswer()


def subject(node_id: str) -> str:
    """Returns the subject on which this host asks."""
    return f"{PREFIX}.led.{node_id}.leave"


def _user(membership: Membership, keys: NodeKeys) -> LinkUser:
    return LinkUser(keys.node_id, member_inbox(keys.node_id), NKey.from_seed(keys.seed), hub_tls(membership.ca))


async def is_let_in(membership: Membership, keys: NodeKeys, clock: Clock) -> bool:
    """Tells whether the hub lets this host in: it does not if the host was forgotten, or has signed off before.

    Raises ConnectFailed if no hub is reached: what kept it from the first.
    """
    user, failures = _user(membership, keys), list[ConnectFailed]()
    for hub in membership.hubs:
        try:
            return await _lets_in(user, hub, clock)
        except ConnectFailed as failure:
            failures.append(failure)
    raise failures[0]


async def _lets_in(user: LinkUser, hub: HubAddress, clock: Clock) -> bool:
    """Raises ConnectFailed. A connection that is broken off says nothing: that is done, too, to whoever signs on as
    nats-server is told who the members are now. It is tried again then, once.
    """
    for is_last in (False, True):
        try:
            await (await HubConnection.dial(user, hub, clock)).close()
        except ConnectFailed as failure:
            if failure.reason == Hindrance.KEY_NOT_KNOWN:
                return False
            if is_last or failure.reason != Hindrance.NOT_A_HUB:
                raise
        else:
            break
    return True


async def sign_off(membership: Membership, keys: NodeKeys, clock: Clock) -> None:
    """Has the hub let this host in no more.

    Raises ConnectFailed: the hub is not reached, or lets this host in no more already. Raises FleetError: it does not
    answer, or refuses.
    """
    link = NatsLink(lambda: membership.hubs, _user(membership, keys), clock)
    link.start()
    try:
        await link.wait_connected(CONNECT_S)
        await ask(link, keys.node_id)
    finally:
        await link.close()


async def ask(link: HubLink, node_id: str) -> None:
    """Asks the hub. Raises FleetError, with its words if it refuses."""
    text = await link.request(subject(node_id), b"{}", ANSWER_S)
    try:
        answer = read(text, LeaveAnswer)
    except Unreadable as error:
        raise NotAnswered("the hub's answer is not understood: bring both to the same version") from error
    if answer.refused:
        raise FleetError(f"the hub does not let this host leave: {answer.refused}")


def forget(folder: FleetFolder) -> None:
    """Ends the membership: to be called before `fleet_traces.erase`, as a host without the file is in no fleet.

    Raises HostError.
    """
    folder.leave()
