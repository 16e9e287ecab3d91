"""Builds what the hub that leads does beside being an exit: the ledger, the fold, and the desks for members."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from appliance.fleet.accounts import terms
from appliance.fleet.accounts.ledger import SyncLedger
from appliance.fleet.claims.claims import KEY_LAPSES_MS, NAME_LAPSES_MS
from appliance.fleet.claims.kv import KvRecords
from appliance.fleet.claims.ledger import ClaimLedger
from appliance.fleet.hub.cluster import COPIES
from appliance.fleet.hub.config import LEASES_MB
from appliance.fleet.hub.partings import HubPartings
from appliance.fleet.hub.rotation import HubRotation, RotationSteps
from appliance.fleet.hub.upkeep import HOUR_MS
from appliance.fleet.joining.desk import JoinDesk
from appliance.fleet.joining.leaving import LeaveDesk
from appliance.fleet.joining.told_dialled import ToldDialled
from appliance.fleet.link.hub_connection import GOODBYE_S
from appliance.fleet.link.link import NatsLink, hub_tls
from appliance.fleet.link.nats_client import LinkUser
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.identity import FleetFolder
from appliance.fleet.quota.lease_ledger import LeaseLedger
from appliance.fleet.quota.lease_upkeep import LeaseUpkeep
from appliance.fleet.reports import away
from appliance.fleet.reports.fold import Fold
from appliance.fleet.reports.fold_answers import FoldAnswers
from appliance.fleet.reports.fold_copies import FoldCopies
from appliance.fleet.reports.stream_upkeep import StreamUpkeep
from appliance.fleet.reports.streams import NatsStreams
from appliance.store.queries import fleet_changes, fleet_fold, fleet_members

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from typing import Any

    from appliance.config.settings import Settings
    from appliance.domain.clock import Clock
    from appliance.fleet.accounts.sync_messages import SyncRequest
    from appliance.fleet.hub.hub_server import HubServer
    from appliance.fleet.link.link import HubsOf, LinkState
    from appliance.fleet.membership.identity import HubSecrets, Membership
    from appliance.fleet.membership.roster import Roster
    from appliance.store.database import Store
    from appliance.store.queries.fleet_changes import Head

    Task = Callable[[asyncio.Event], Coroutine[Any, Any, None]]

KEYS, DEVICE_NAMES, LEASES = "keys", "dev", "quota"  # buckets of JetStream
JETSTREAM = "_INBOX_hub"


@dataclass(frozen=True, slots=True)
class HubPlan:
    """Holds what a hub is made from. `base`: see FleetRow. `several`: it is one of several hubs, and leads."""

    state_dir: Path
    membership: Membership
    of_hub: HubSecrets
    gen: int
    node_id: str
    base: Head
    several: bool


class HubPart:
    """Holds a hub's parts. `listen` begins to answer, `tasks` are to be run, and the link closed at the end.

    `addresses`: where it dials, its own server first.
    """

    def __init__(
        self, plan: HubPlan, server: HubServer, addresses: HubsOf, store: Store, roster: Roster, clock: Clock
    ) -> None:
        self._server = server
        user = LinkUser("hub", JETSTREAM, NKey.from_seed(plan.of_hub.hub_seed), hub_tls(plan.membership.ca))
        self.link = NatsLink(addresses, user, clock, self._changed)
        self._copies = COPIES if plan.several else 1
        self._roster = roster
        self._store = store
        streams, disk = NatsStreams(self.link.jetstream, self._copies), plan.state_dir
        self.fold = fold = Fold(store, streams, roster.present, lambda: shutil.disk_usage(disk).free)
        keys, names, leases = self._buckets()
        self.claims = ClaimLedger(keys, names, clock, self._owner_of, roster.is_present, beside=(leases,), gen=plan.gen)
        self.leases = LeaseLedger(leases, store, clock, roster.present, self.claims.name, plan.gen)
        self.lease_upkeep = LeaseUpkeep(leases, self.leases, clock)
        answers = FoldAnswers(store, self.fold, roster.is_present)
        copies = FoldCopies(store, answers, roster.standbys)
        self.stream_upkeep = StreamUpkeep(fold, streams, roster.present, clock, (keys, names), copies.are_whole)
        self.partings = HubPartings(store, self.claims, roster.is_present)
        self.trusting: Callable[[Membership], None] = lambda _membership: None  # what else goes by it
        steps = RotationSteps(server.upkeep.sign, self._trust)
        self.rotation = HubRotation(FleetFolder(plan.state_dir), store, roster, clock, plan.of_hub, steps)
        self.dialled = ToldDialled(store, roster)
        self.ledger = SyncLedger(
            store, plan.gen, self.claims.name, plan.base, self._told, lambda node: node in roster.standbys()
        )
        self._plan = plan
        self._joining = JoinDesk(store, plan.membership, server.upkeep.apply, clock, plan.of_hub)
        self._desks = (
            self._joining,
            LeaveDesk(store, clock, self.fold.catch_up),
            answers,
            copies,
            self.claims,
            self.leases,
            self.ledger,
            self.fold,
        )

    def _buckets(self) -> tuple[KvRecords, KvRecords, KvRecords]:
        copies = self._copies
        keys = KvRecords(self.link.jetstream, KEYS, timedelta(milliseconds=KEY_LAPSES_MS + HOUR_MS), copies)
        names = KvRecords(self.link.jetstream, DEVICE_NAMES, timedelta(milliseconds=NAME_LAPSES_MS + HOUR_MS), copies)
        return keys, names, KvRecords(self.link.jetstream, LEASES, None, copies, LEASES_MB * 1024 * 1024)

    def _trust(self, membership: Membership, of_hub: HubSecrets) -> None:
        self.link.trust(membership.ca)
        self._server.trust(membership, of_hub)
        self._joining.trust(membership, of_hub)
        self.trusting(membership)

    async def _told(self, sender: str, asked: SyncRequest) -> tuple[str, bytes]:
        await self.dialled.note(sender, asked.dialled)
        return await self.rotation.told(sender, asked)

    def _changed(self, state: LinkState) -> None:
        if state.connected:
            self.fold.reconnected()

    async def _owner_of(self, id_: str) -> str | None:
        async with self._store.read() as db:
            found = await away.folded(db, id_)
        return None if found is None else found.node

    async def take_over(self, settings: Settings) -> None:
        """Goes by these settings from now on, and has the fleet follow the terms. Raises StoreUnavailable."""
        self.leases.take_over(settings)
        await terms.tell(self._store, settings)

    async def told_until(self) -> dict[str, int]:
        """Returns up to when (wall clock, ms) each exit that has said so has reported all. Raises StoreUnavailable."""
        async with self._store.read() as db:
            return {node: upto for node, upto in (await fleet_fold.reported_until(db)).items() if upto}

    async def _follow_roster(self, stopping: asyncio.Event) -> None:
        await self._roster.follow(lambda: self.ledger.position, self.fold.members_changed, stopping)

    def connect(self) -> None:
        """Begins to connect."""
        self.link.start()

    async def listen(self) -> None:
        """Has what comes answered from when the link is connected. Raises FleetError or StoreUnavailable."""
        async with self._store.write() as db:
            if not await fleet_changes.is_recorded(db):  # by this version
                await fleet_changes.record(db)
            await fleet_members.put_dialled(db, self._plan.node_id, self._plan.membership.hubs[0].address)
        for desk in self._desks:
            await desk.listen(self.link)

    def tasks(self) -> dict[str, Task]:
        """Returns what runs until the event that each is given."""
        return {
            "the fleet's authority": self.rotation.run,
            "the ledger": self.ledger.run,
            "the roster": self._follow_roster,
            "the upkeep of streams": self.stream_upkeep.run,
            "the upkeep of limits": self.lease_upkeep.run,
            "what is to be freed": self.partings.run,
        }

    async def close(self, goodbye_s: float = GOODBYE_S) -> None:
        await self.link.close(goodbye_s)
