"""Answers hosts that ask a hub for membership, on `wga.join.<the NKEY of their invitation>`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from appliance import __version__
from appliance.domain.errors import FleetError, HostError, NotAnswered, StoreUnavailable
from appliance.fleet.accounts import merge as account_merge
from appliance.fleet.joining import sealed_secrets
from appliance.fleet.joining.messages import JoinAnswer, JoinFacts, JoinRequest, has_joined, refusal
from appliance.fleet.link.reading import Unreadable, read
from appliance.fleet.link.wire import PREFIX
from appliance.fleet.membership.hub_addresses import hubs_of
from appliance.fleet.presence.beats import SPOKEN
from appliance.store.kept_changes import await_kept
from appliance.store.queries import account_offers, fleet_invites, fleet_members, fleet_state

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    import aiosqlite

    from appliance.domain.clock import Clock
    from appliance.fleet.link.wire import HubLink, Message
    from appliance.fleet.membership.identity import HubSecrets, Membership
    from appliance.fleet.membership.members import Role
    from appliance.store.database import Store

log = logging.getLogger(__name__)

TRY_AGAIN = "run the same command again"
KEPT_S = 5.0  # within which a second hub must have it


class JoinDesk:
    """Admits hosts. `apply`: has the hub's nats-server let the members in that the store has (see HubUpkeep).

    `of_hub`: what a standby is told. Without it none can join.
    """

    def __init__(
        self,
        store: Store,
        membership: Membership,
        apply: Callable[[], Awaitable[None]],
        clock: Clock,
        of_hub: HubSecrets | None = None,
    ) -> None:
        self._store = store
        self._membership = membership
        self._apply = apply
        self._clock = clock
        self._of_hub = of_hub

    def trust(self, membership: Membership, of_hub: HubSecrets) -> None:
        """Tells hosts that join from now on of these."""
        self._membership, self._of_hub = membership, of_hub

    async def listen(self, link: HubLink) -> None:
        """Begins to answer, on the hub's own link. Raises what `subscribe` does."""
        await link.subscribe(f"{PREFIX}.join.*", self._answer)

    async def _answer(self, message: Message) -> None:
        invitation = message.subject.rpartition(".")[2]
        await message.answer(msgspec.json.encode(await self.answered(invitation, message.data)))

    async def answered(self, invitation: str, data: bytes) -> JoinAnswer:
        """Returns the answer for who holds the invitation: its NKEY is the subject's, which only its holder may ask.

        The same host that asks again gets the same answer. Does not raise.
        """
        try:
            asked = read(data, JoinRequest)
            async with self._store.write() as db:
                answer = await self._admit(db, invitation, asked)
                changed = await fleet_state.to_be_kept(db)
            if not answer.refused:
                # Before the answer: the host signs on with its own key as soon as it has it.
                await self._apply()
                if changed is not None and not await await_kept(self._store, changed, KEPT_S):
                    # It would be unknown to a hub that leads next.
                    raise NotAnswered("no second hub has heard of it yet")
        except Unreadable:
            return JoinAnswer(refused="the hub does not understand this host: bring both to the same version")
        except (FleetError, HostError, StoreUnavailable) as error:
            log.warning("a host cannot join: %s", error)
            return JoinAnswer(refused=f"the hub cannot take a host in now ({error}): {TRY_AGAIN}")
        if answer.refused:
            log.info("a host may not join as %s: %s", asked.name, answer.refused)
        else:
            log.info("%s (%s) has joined the fleet", asked.name, asked.node_id)
        return answer

    async def _admit(self, db: aiosqlite.Connection, invitation: str, asked: JoinRequest) -> JoinAnswer:
        now = self._clock.now().wall_ms
        invite = await fleet_invites.by_hash(db, invitation)
        facts = JoinFacts(
            invite=invite,
            members=await fleet_members.present(db),
            names=await _taken(db, asked.accounts, asked),
            spoken=SPOKEN,
            version=__version__,
            now=now,
        )
        if not has_joined(asked, facts):
            refused = refusal(asked, facts)
            if refused is not None or invite is None:
                return refused or JoinAnswer(refused=TRY_AGAIN)
            merged = await account_merge.take_in(db, asked.offer, "")
            if merged.in_the_way:
                names = ", ".join(map(repr, merged.in_the_way))
                return JoinAnswer(refused=f"the fleet cannot have accounts of these names: {names}: {TRY_AGAIN}")
            await fleet_invites.use(db, invitation, asked.nkey, now)
            await fleet_members.put(db, asked.member(invite.role, now))
        return await self._welcome(db, asked)

    async def _welcome(self, db: aiosqlite.Connection, asked: JoinRequest) -> JoinAnswer:
        row, member = await fleet_state.read(db), await fleet_members.by_id(db, asked.node_id)
        of_fleet, members = self._membership, await fleet_members.present(db)
        role: Role = "spoke" if member is None else member.role
        told = self._of_hub if role == "standby" else None
        return JoinAnswer(
            taken=await _taken(db, asked.unused, asked),
            fleet_id=of_fleet.fleet_id,
            gen=1 if row is None else row.gen,
            role=role,
            hubs=hubs_of(members) or of_fleet.hubs,
            fleet_key=of_fleet.fleet_key,
            ca=of_fleet.ca,
            told=tuple(replace(each, role="spoke") if each.role == "standby" else each for each in members),
            standbys=tuple(each.id for each in members if each.role == "standby"),
            of_hub=b"" if told is None else sealed_secrets.sealed(told, asked.xkey),
        )


async def _taken(db: aiosqlite.Connection, names: Iterable[str], asked: JoinRequest) -> tuple[str, ...]:
    """Returns those of the host's names that another account of the fleet's has.

    Not of an account that the fleet has, or had, under the same id, as the host was in it before: what has become of
    that one since holds, whatever is called so now.
    """
    ids = await account_offers.known(db, [each.id for each in asked.offer])
    same = {each.name for each in asked.offer if each.id in ids}
    return tuple(sorted((await account_offers.names_taken(db, names)).keys() - same))
