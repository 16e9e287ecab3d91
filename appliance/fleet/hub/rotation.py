"""Has another authority of certificates follow the present one, on the hub; see authorities for the steps."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain.errors import CutOff, FleetError, HostError, StoreUnavailable
from appliance.fleet.hub import authorities
from appliance.fleet.hub.certificates import CertifiedKey
from appliance.fleet.joining import sealed_secrets
from appliance.sessions.stopping import wait
from appliance.store.queries import fleet_changes, fleet_invites, fleet_members

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from appliance.domain.clock import Clock
    from appliance.fleet.accounts.sync_messages import SyncRequest
    from appliance.fleet.membership.identity import FleetFolder, HubSecrets, Membership, NextAuthority
    from appliance.fleet.membership.members import FleetMember
    from appliance.fleet.membership.roster import Roster
    from appliance.store.database import Store

log = logging.getLogger(__name__)

LOOK_S = 1.0  # how soon `fleet rotate-ca` is followed


@dataclass(frozen=True, slots=True)
class RotationSteps:
    """Holds what a hub does. `sign`: returns when its certificate is that authority's, and in force.

    `trust`: goes by this membership and these secrets from now on.
    """

    sign: Callable[[CertifiedKey], Awaitable[None]]
    trust: Callable[[Membership, HubSecrets], None]


class HubRotation:
    """Takes the steps when they are due, and tells members that ask which authorities to trust."""

    def __init__(
        self, folder: FleetFolder, store: Store, roster: Roster, clock: Clock, of_hub: HubSecrets, steps: RotationSteps
    ) -> None:
        self._folder = folder
        self._store = store
        self._roster = roster
        self._clock = clock
        self._of_hub = of_hub
        self._steps = steps
        self._ca = ""  # as members are told; "": not read yet
        self._known: dict[str, tuple[str, str]] = {}  # what each member has, as it has said last
        self._looked_at: tuple[int, ...] | None = None  # the file of the secrets, where no authority follows
        self._fault = ""

    async def told(self, sender: str, asked: SyncRequest) -> tuple[str, bytes]:
        """Returns what the sender is to trust, and a hub's secrets, sealed to a standby; empty: it has them."""
        if not asked.ca or not self._ca:  # of an older version; or this hub has just started
            return "", b""
        self._known[sender] = asked.ca, asked.of_hub
        ca = "" if asked.ca == authorities.mark_of_ca(self._ca) else self._ca
        member = self._roster.get(sender)
        if member is None or member.role != "standby" or asked.of_hub == authorities.mark_of_secrets(self._of_hub):
            return ca, b""
        return ca, sealed_secrets.sealed(self._of_hub, member.xkey)

    async def run(self, stopping: asyncio.Event) -> None:
        """Looks until `stopping`. A fault is logged once, and tried again."""
        while not stopping.is_set():
            fault = ""
            try:
                await self.look()
            except (CutOff, StoreUnavailable) as error:
                log.debug("the fleet's authority: %s", error)  # the link or the tick says it
            except (FleetError, HostError) as error:
                fault = str(error)
                if fault != self._fault:
                    log.warning("the fleet's authority cannot be replaced yet: %s", fault)
            self._fault = fault
            await wait(stopping, LOOK_S)

    async def look(self) -> None:
        """Takes the step that is due. Raises FleetError, HostError or StoreUnavailable: it is to be taken again."""
        mark = self._folder.hub_secrets_mark()
        if mark == self._looked_at:
            return
        of_hub = await asyncio.to_thread(self._folder.hub_secrets)
        if of_hub is None:
            return
        if of_hub != self._of_hub or not self._ca:
            await self._trust(of_hub)
        following, now = of_hub.next_authority, self._clock.now().wall_ms
        if following is None:
            self._looked_at = mark if self._ca else None
            return
        if following.signs_since is None:
            if authorities.is_over(following, now) or await self._all_trust_both(following, now):
                await self._steps.sign(CertifiedKey(following.certificate, following.key))
                await self._keep(authorities.signing(of_hub, following, now))
                log.info("the hub's certificate is the new authority's now")
        elif authorities.is_over(following, now):
            await self._write_ca(following.certificate)
            await self._keep(authorities.ended(of_hub, following))
            log.info("the fleet trusts the new authority alone now")

    async def _keep(self, of_hub: HubSecrets) -> None:
        await asyncio.to_thread(self._folder.save_hub_secrets, of_hub)
        await self._trust(of_hub)

    async def _trust(self, of_hub: HubSecrets) -> None:
        membership = await asyncio.to_thread(self._folder.membership)
        if membership is None:
            return
        ca = authorities.trusted(membership.ca, of_hub)
        if ca != membership.ca:
            membership = await self._write_ca(ca) or membership
        self._steps.trust(membership, of_hub)
        is_news = self._ca not in ("", ca) or of_hub != self._of_hub
        self._ca, self._of_hub = ca, of_hub
        if is_news:
            async with self._store.write() as db:
                await fleet_changes.nudge(db)

    async def _write_ca(self, ca: str) -> Membership | None:
        membership = await asyncio.to_thread(self._folder.membership)
        if membership is None:  # it has just left
            return None
        membership = replace(membership, ca=ca)
        await asyncio.to_thread(self._folder.save_membership, membership)
        return membership

    async def _all_trust_both(self, following: NextAuthority, now: int) -> bool:
        """Tells whether nobody is left that knows the old one alone: no member, no holder of an open invitation."""
        async with self._store.read() as db:
            members, invites = await fleet_members.present(db), await fleet_invites.everything(db)
        return all(map(self._trusts_both, members)) and not any(
            each.used_by is None and each.made_at <= following.told_since and now < each.expires_at for each in invites
        )

    def _trusts_both(self, member: FleetMember) -> bool:
        if member.role == "hub":  # this one
            return True
        ca, of_hub = self._known.get(member.id, ("", ""))
        has_secrets = member.role != "standby" or of_hub == authorities.mark_of_secrets(self._of_hub)
        return has_secrets and ca == authorities.mark_of_ca(self._ca)
