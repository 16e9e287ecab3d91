"""Joins this host to a fleet: asks a hub for membership by a join token, and stores what it is answered.

    joined = await ask(link, request)           over a link that signed on with the token
    await become_member(store, folder, joined)  the host is a member from now on

`join` does the asking whole, from the token. Nothing is kept of a join that failed but the host's own keys, with which
it is known when it asks again.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from appliance.domain.clock import Moment
from appliance.domain.errors import ConnectFailed, CutOff, JoinRefused, NoResponder, NotAnswered, NotPermitted
from appliance.fleet.hub.config import invitation_inbox, join_subject, member_inbox
from appliance.fleet.joining.messages import MAKE_ANOTHER, JoinAnswer, JoinRequest
from appliance.fleet.joining.sealed_secrets import opened
from appliance.fleet.link.connect_failure import Hindrance
from appliance.fleet.link.hub_connection import HubConnection
from appliance.fleet.link.link import NatsLink, hub_tls
from appliance.fleet.link.nats_client import LinkUser
from appliance.fleet.link.nkey import NKey
from appliance.fleet.link.reading import Unreadable, read
from appliance.fleet.membership.hub_addresses import brought_up_to_date
from appliance.fleet.membership.identity import HubAddress, Membership
from appliance.fleet.presence.beats import SPOKEN
from appliance.store.queries import account_offers, fleet_members, fleet_state, own_accounts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiosqlite

    from appliance.domain.clock import Clock
    from appliance.fleet.joining.token import JoinToken
    from appliance.fleet.link.wire import HubLink
    from appliance.fleet.membership.identity import FleetFolder, NodeKeys
    from appliance.store.database import Store

CONNECT_S, ANSWER_S = 10.0, 10.0
TRIES, PAUSE_S = 3, 1.0
LARGEST = 250_000  # bytes: a hub takes messages of 256 KB
RUN_AGAIN = "run the same command again"


async def request_of(
    db: aiosqlite.Connection, keys: NodeKeys, name: str, region: str, now: int, dialled: str = ""
) -> JoinRequest:
    """Returns what this host asks for. `dialled`: where others are to dial it, as a hub."""
    return JoinRequest(
        node_id=keys.node_id,
        name=name,
        region=region,
        nkey=keys.nkey,
        xkey=keys.public_xkey,
        p=SPOKEN,
        t=now,
        accounts=await own_accounts.names(db, with_history=True),
        unused=await own_accounts.names(db, with_history=False),
        offer=tuple(await account_offers.read(db, now)),
        dialled=dialled,
    )


async def join(token: JoinToken, keys: NodeKeys, asked: JoinRequest, clock: Clock) -> JoinAnswer:
    """Returns the fleet, once this host can sign on to its hub. Raises ConnectFailed or JoinRefused."""
    invitation = NKey.from_seed(token.seed)
    tls = hub_tls(token.ca)
    hubs = tuple(HubAddress(address, token.server_name) for address in token.hubs)
    user = LinkUser("join", invitation_inbox(invitation.public), invitation, tls)
    try:
        async with _connected(hubs, user, clock) as link:
            answer = await ask(link, join_subject(invitation.public), asked)
    except ConnectFailed as failure:
        if failure.reason == Hindrance.KEY_NOT_KNOWN:
            # Invitations stay known to the hub for a while after they expired.
            raise JoinRefused(f"the hub does not know this join token, or no longer: {MAKE_ANOTHER}") from failure
        raise
    own = LinkUser(keys.node_id, member_inbox(keys.node_id), NKey.from_seed(keys.seed), hub_tls(answer.ca))
    async with _connected(answer.hubs, own, clock):
        return answer


@asynccontextmanager
async def _connected(hubs: tuple[HubAddress, ...], user: LinkUser, clock: Clock) -> AsyncIterator[HubLink]:
    """Yields a link to the first hub that can be connected to. Raises ConnectFailed, without trying any twice."""
    hub = await _first(hubs, user, clock)
    link = NatsLink(lambda: (hub,), user, clock)
    link.start()
    try:
        await link.wait_connected(CONNECT_S)
        yield link
    finally:
        await link.close()


async def _first(hubs: tuple[HubAddress, ...], user: LinkUser, clock: Clock) -> HubAddress:
    for left, hub in zip(reversed(range(len(hubs))), hubs, strict=True):
        try:
            await (await HubConnection.dial(user, hub, clock)).close()
        except ConnectFailed:
            if not left:
                raise
        else:
            return hub
    raise JoinRefused(f"the hub has told no address: {MAKE_ANOTHER}")


async def ask(link: HubLink, subject: str, asked: JoinRequest) -> JoinAnswer:
    """Asks for membership, again if no answer comes: the hub answers the same host alike.

    Raises JoinRefused, with the hub's words.
    """
    question = msgspec.json.encode(asked)
    if len(question) > LARGEST:
        raise JoinRefused("this host has too many accounts of its own to join a fleet: delete those not needed")
    for left in reversed(range(TRIES)):
        try:
            text = await link.request(subject, question, ANSWER_S)
            break
        except (CutOff, NotAnswered, NoResponder) as error:
            if not left:
                raise JoinRefused(
                    f"the hub's nats-server answers, its wg-appliance does not: does it run there? Then {RUN_AGAIN}"
                ) from error
            await asyncio.sleep(PAUSE_S)
        except NotPermitted as error:
            raise JoinRefused(f"the hub refuses this join token: {MAKE_ANOTHER}") from error
    try:
        answer = read(text, JoinAnswer)
    except Unreadable as error:
        raise JoinRefused("this host does not understand the hub: bring both to the same version") from error
    if answer.refused:
        raise JoinRefused(answer.refused, answer.taken)
    return answer


async def become_member(store: Store, folder: FleetFolder, asked: JoinRequest, answer: JoinAnswer) -> tuple[str, ...]:
    """Stores the membership. Returns the names of accounts that were dropped, as the fleet has them and none was used.

    The file comes last: a server that finds it takes part. Raises HostError, StoreUnavailable or JoinRefused: the host
    is in no fleet then, and may ask again.
    """
    of_hub = opened(answer.of_hub, folder.keys().xkey) if answer.role == "standby" else None
    async with store.write() as db:
        dropped = await own_accounts.drop(db, answer.taken)
        await fleet_state.enter(db, answer.role, asked.node_id, answer.gen)
        # The hub has just been heard, and has what is here. Of no boot, so that it goes by the wall clock.
        await fleet_state.put_heard(db, Moment(asked.t, 0, ""))
        for member in answer.members:
            await fleet_members.put(db, member)
    if of_hub is not None:
        folder.save_hub_secrets(of_hub)
    joined = Membership(answer.fleet_id, asked.name, answer.role, answer.hubs, answer.ca, answer.fleet_key)
    folder.save_membership(brought_up_to_date(joined, asked.node_id, answer.role, answer.members))
    return dropped
