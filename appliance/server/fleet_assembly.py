"""Builds this host's part in its fleet, around the exit that it is. Imported only on a host that is in one."""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from appliance.domain import ids
from appliance.domain.errors import HostError, StoreUnavailable
from appliance.fleet.accounts import terms
from appliance.fleet.accounts.caller import Caller
from appliance.fleet.accounts.replica import Reactions, Replica
from appliance.fleet.accounts.terms import FollowedTerms
from appliance.fleet.joining.followed_authorities import FollowedAuthorities
from appliance.fleet.link.hub_connection import GOODBYE_S
from appliance.fleet.link.link import NatsLink
from appliance.fleet.presence.beating import Beating
from appliance.fleet.presence.beats import OwnBeats
from appliance.fleet.presence.counted_call import CountedCall
from appliance.fleet.presence.directory import Directory
from appliance.fleet.presence.offline import OfflineTokens, may_open
from appliance.fleet.presence.placement import FleetNodes
from appliance.fleet.presence.trusting_view import TrustingView
from appliance.fleet.quota.holder import Sharing
from appliance.fleet.quota.lease_requests import LeaseRequests
from appliance.fleet.quota.retelling import Retelling
from appliance.fleet.reports.hub_folds import HubFolds
from appliance.fleet.reports.reporting import Reporting, ReportingPace
from appliance.fleet.routing import any_exit
from appliance.fleet.rpc.rpc import Rpc
from appliance.fleet.rpc.seal import Seals
from appliance.fleet.status.collector import FleetCounts, rpc_seconds
from appliance.fleet.status.report_watch import ReportWatch
from appliance.fleet.status.status import KnownTokens, fleet_status
from appliance.fleet.status.status_file import StatusNotes
from appliance.server import fleet_exit_parts
from appliance.server.api.offered import as_it_is, nothing
from appliance.server.fleet_role import FleetRole, user_of
from appliance.sessions.node import Nodes
from appliance.store.commits import StoreNews
from appliance.store.queries import fleet_state, fleet_terms

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from appliance.config.load import Settings
    from appliance.domain.clock import Moment
    from appliance.fleet.hub.hub_serving import HubServing, HubStanding
    from appliance.fleet.hub_part import HubPart
    from appliance.fleet.link.link import LinkState
    from appliance.fleet.membership.identity import Membership, NodeKeys
    from appliance.fleet.membership.roster import Roster
    from appliance.fleet.status.status import FleetStatus
    from appliance.server.served_exit import ServedExit

    Task = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
    Endless = Callable[[], Coroutine[Any, Any, None]]


log = logging.getLogger(__name__)

# For an exit to be found that opens a session: as long as one may take, and the ways there and back.
LONGEST_PATIENCE_S, WAY_S = 8.0, 1.5


class FleetPart:
    """Is what this host does in its fleet: built from what the store and state_dir/fleet say of it."""

    def __init__(
        self,
        here: ServedExit,
        membership: Membership,
        keys: NodeKeys,
        roster: Roster,
        role: FleetRole,
        serving: HubServing,
        standing: HubStanding,
    ) -> None:
        self._here = here
        self._membership = membership
        self._keys = keys
        self._role = role
        self._serving, self._standing = serving, standing
        self.roster = roster
        self.hub: HubPart | None = None
        self.link = self._make_link()
        self.directory = Directory(fleet_exit_parts.this_member(roster, keys.node_id), roster.all)
        self.dialled = fleet_exit_parts.own_dialled(lambda: self._here)
        self.replica = self._make_replica()
        self.replica.tells_at_once = standing.cluster > 0
        self._own_beats = self._make_beats()
        self.nodes = FleetNodes(
            here.parts.node, self.directory, self._own_beats, self.link, here.clock, secrets.randbelow
        )
        self.beating = Beating(self.link, self._own_beats, self.directory, here.clock, self._heard_hub)
        self.claims = fleet_exit_parts.own_claims(here, self.link, keys.node_id, membership.fleet_key)
        self.lease_requests = LeaseRequests(self.link, keys.node_id)
        self.leasing = fleet_exit_parts.leasing(here, self.lease_requests, self._sharing)
        self.rpc = Rpc(self.link, keys.node_id, Seals(keys.xkey, roster.xkey_of), here.clock)
        self.reporting = Reporting(
            keys.node_id, self.link, here.store, here.clock, ReportingPace(report_s=here.settings.fleet.report)
        )
        self._rpc_seconds = rpc_seconds()
        self.any = self._make_any_exit()
        self._reports = ReportWatch(here.store, here.clock, self.reporting.unsent)
        self._disconnected = False
        self._news = StoreNews(here.store.commits)  # of what this host is
        self._terms: FollowedTerms | None = None

    # Building ------------------------------------------------------------------------------------------

    def _make_link(self) -> NatsLink:
        return NatsLink(
            lambda: self._serving.addresses() or self._membership.hubs,
            user_of(self._membership, self._keys),
            self._here.clock,
            self._link_changed,
        )

    def _link_changed(self, state: LinkState) -> None:
        if state.connected:
            self.reporting.reconnected()
            self.replica.reconnected()

    def _make_replica(self) -> Replica:
        here, keys = self._here, self._keys
        authorities = FollowedAuthorities(self._role.folder, keys.xkey, lambda: self._membership, self._trust)
        beside = self._reactions(), authorities, lambda: self.dialled.now
        return Replica(self.link, here.store, keys.node_id, here.clock, *beside)

    def _make_beats(self) -> OwnBeats:
        here, own = self._here, self.roster.get(self._keys.node_id)
        assert own is not None  # noqa: S101 (it was looked at)
        figures, inst = fleet_exit_parts.figures(here, self._position), secrets.token_hex(8)
        return OwnBeats(own, here.parts.node, figures, here.clock, inst=inst, refusal=self.directory.refusal)

    def _position(self) -> tuple[int, int]:
        return self.replica.position if self.hub is None else self.hub.ledger.position

    def _make_any_exit(self) -> any_exit.AnyExit:
        here, parts = self._here, self._here.parts
        this = any_exit.ThisExit(
            own_id=self._keys.node_id,
            region=here.settings.node.region,
            store=here.store,
            tokens=parts.tokens,
            clock=here.clock,
            sessions=parts.services.sessions,
            devices=parts.services.devices,
            own_keys=frozenset({here.own_key}),
            wake=parts.wakeup.request_tick,
        )
        heard = OfflineTokens(self._heard, here.clock, lambda: self._here.settings.fleet.offline_tokens)
        fleet = any_exit.TheFleet(
            view=TrustingView(self.nodes, heard),
            call=CountedCall(self.rpc.call, self.directory, self.link, here.clock, self._rpc_seconds),
            claims=self.claims,
            folds=HubFolds(here.store, self.roster.is_present) if self._standing.leads else None,
            hub_id=self._hub_id,
            patience_s=min(LONGEST_PATIENCE_S, here.settings.wireguard.apply_timeout + WAY_S),
            is_hub=self.roster.is_hub,
        )
        return any_exit.build(this, fleet, parts.services.quotas, parts.records.lending)

    def _sharing(self) -> Sharing:
        strict = self._here.settings.fleet.when_cut_off == "strict"
        return Sharing(max(1, len(self.roster.present())), strict=strict)

    async def _ledgers_memory(self) -> str:
        return self.replica.memory if self.hub is None else await self.hub.claims.name()

    def _hub_id(self) -> str | None:
        """Returns a hub that can be asked now."""
        return next((node for node, there in self.nodes.standing().items() if there and self.roster.is_hub(node)), None)

    def _heard(self) -> Moment | None:
        """Returns when the ledger was last heard: on the hub it is here, unless another of several leads."""
        if not self._standing.leads:
            return self.replica.heard
        return self._serving.heard() if self._standing.cluster else self._here.clock.now()

    def _reactions(self) -> Reactions:
        parts = self._here.parts

        async def new_terms(text: str) -> None:
            if self._terms is not None:
                await self._terms.take(text, parts.ticker, self._here.take_over)

        return Reactions(
            accounts=parts.wakeup.request_tick,
            members=self._members_changed,
            terms=new_terms,
            claims=lambda: self.claims.claim_again(),
            older=self.link.dial_another,
        )

    async def _members_changed(self) -> None:
        await self.roster.load()
        try:
            self._membership = await self._role.brought_up_to_date(self._membership)
        except HostError as error:  # the link goes by those that were known; the next start writes it
            log.error("the hubs' addresses are not kept: %s", error)

    def _trust(self, membership: Membership) -> None:
        self._membership = membership
        self.link.trust(membership.ca)

    def _heard_hub(self, gen: int, acc_rev: int) -> None:
        if not self._standing.leads:
            self.replica.beat(gen, acc_rev)

    # Running -------------------------------------------------------------------------------------------

    async def begin(self, hub: HubPart | None) -> None:
        """Begins to connect, to answer and to follow; the API is the fleet's from here on."""
        here, self.hub = self._here, hub
        await self.dialled.look()
        if hub is not None:
            self._reports.told = hub.told_until
            self.dialled.taken = partial(hub.dialled.note, self._keys.node_id)
            hub.trusting = self._trust
            hub.leases.take_over(here.settings)
            await terms.lead(here.store, here.settings, here.parts.ticker, here.take_over)
            await hub.listen()
        else:
            await self.replica.load()
            await self._follow_terms()
        await self.beating.listen()
        for name, handler in self.any.owner.handlers().items():
            self.rpc.register(name, handler)
        await self.rpc.start()
        await self.leasing.load()
        here.parts.records.lending.enter(self.leasing)
        here.parts.node.id_mark = ids.mark_of_node(self._keys.node_id)
        offered = here.parts.services.offered
        offered.sessions, offered.devices, offered.caller = self.any.sessions, self.any.devices, Caller.of
        offered.regions, offered.quotas = self.any.elsewhere.view, self.any.quotas
        offered.fault = lambda: self.directory.own_fault(here.clock.now())

    async def connect(self) -> None:
        """Begins to connect, on a hub once its server answers."""
        await self._serving.wait_listening()
        if self.hub is not None:
            self.hub.connect()
        self.link.start()

    async def _follow_terms(self) -> None:
        here = self._here
        async with here.store.read() as db:
            text, kept_on = await fleet_terms.read(db), await fleet_state.kept_on(db)
        self._terms = FollowedTerms(here.settings, text, kept_on or "the hub")
        if text is not None:
            await terms.apply(
                self._terms.over(here.settings), here.parts.ticker.settle, here.take_over, here.parts.ticker.tick
            )

    def over(self, read: Settings) -> Settings:
        """Returns settings that were read, on a spoke with the fleet's tiers and prices."""
        return read if self._terms is None else self._terms.over(read)

    async def reloaded(self, read: Settings) -> None:
        """Goes by settings that were read anew; a hub tells its tiers and prices. Raises StoreUnavailable."""
        self._here = self._here.reloaded(read)
        self.reporting.report_each(self._here.settings.fleet.report)
        if self.hub is not None:
            await self.hub.take_over(read)

    def tasks(self) -> dict[str, Task]:
        """Returns what runs until the event that each is given."""
        notes = StatusNotes(self._here.state.fleet_status, self.status, self._here.clock)
        own: dict[str, Task] = {"beats": self.beating.run, "claims": self.claims.run, "status": notes.run}
        own["where others dial"] = self.dialled.run
        if self._standing.role == "hub":
            own["the other hubs"] = self._watch_hubs
        if self._standing.role == "standby":
            own["a copy of the fold"] = fleet_exit_parts.fold_copying(self._here, self.link, self._keys.node_id).run
        return own | ({"the replica": self.replica.run} if self.hub is None else self.hub.tasks())

    async def _watch_hubs(self, stopping: asyncio.Event) -> None:
        await self._role.watch(lambda: self._membership, self._serving.leads, stopping)

    async def is_as_built(self) -> bool:
        """Tells whether this host is in its fleet what it was when this was built. It is, while the store is silent."""
        # One of several hubs, or that is to be, is what it is by what it has heard, too.
        if not self._news.is_any() and not self._standing.cluster and self._standing.role != "standby":
            return True
        with suppress(StoreUnavailable):
            if await self._serving.standing() != self._standing:
                return False
            self._news.taken()
        return True

    def endless(self) -> dict[str, Endless]:
        """Returns what runs until it is cancelled."""
        own: dict[str, Endless] = {
            "reports": self.reporting.run,
            "leases": self.leasing.run,
            "leases told again": Retelling(self.leasing, self.lease_requests, self._ledgers_memory).run,
            "what is reported": self._reports.run,
            "intents": self.any.intents.run,
            "claims of commands": self.any.command_claims.run,
            "operations": self.any.ops.run,
        }
        return own if self.hub is None else own | {"the fold": self.hub.fold.run}

    async def disconnect(self, goodbye_s: float = GOODBYE_S) -> None:
        """Ends the connections, if that was not done; what is still to be sent is, within this time."""
        if not self._disconnected:
            closing = [self.link.close(goodbye_s)] + ([] if self.hub is None else [self.hub.close(goodbye_s)])
            await asyncio.gather(*closing)
            self._disconnected = True

    async def end(self) -> None:
        """Makes this host's API its own again, and ends the connections."""
        parts = self._here.parts
        parts.records.lending.leave()
        offered = parts.services.offered
        offered.sessions, offered.devices, offered.caller = parts.services.sessions, parts.services.devices, as_it_is
        offered.regions, offered.quotas, offered.fault = Nodes(parts.node), parts.services.quotas, nothing
        parts.node.id_mark = ""
        await self.disconnect()

    def counts(self) -> FleetCounts:
        """Returns what is counted, for Prometheus."""
        return FleetCounts(
            dropped=self.directory.dropped,
            resent=lambda: self.reporting.resent,
            denied=lambda: self.claims.denied + self.leasing.denied,
            rpc=self._rpc_seconds,
        )

    # Telling -------------------------------------------------------------------------------------------

    def status(self) -> FleetStatus:
        """Returns how the fleet stands, as this host knows it."""
        now, heard = self._here.clock.now(), self._heard()
        offline_ms = self._here.settings.fleet.offline_tokens * 1000
        tokens = KnownTokens(
            hold=may_open(heard, now, offline_ms), until=None if heard is None else heard.wall_ms + offline_ms
        )
        known = self.nodes.presences(), self._keys.node_id, self.nodes.apart()
        beside = self.claims.taken, self._serving.known(self._standing, self.hub.dialled.told if self.hub else {})
        return fleet_status(*known, self.link.state, self._reports.state, tokens, now, *beside)
