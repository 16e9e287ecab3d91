"""Has this host run a nats-server while it is the hub, or one of several, and take part in who of these leads."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain.errors import CutOff, FleetError, HostError, StoreUnavailable
from appliance.fleet.claims.kv import KvRecords
from appliance.fleet.hub.cluster import COPIES
from appliance.fleet.hub.config import LEAD_MB
from appliance.fleet.hub.files import HubFiles, hub_place
from appliance.fleet.hub.hub_server import HubServer
from appliance.fleet.hub.lead import LeadRecord
from appliance.fleet.hub.leading import BUCKET, Leading, appoint
from appliance.fleet.hub.progress import StoreProgress
from appliance.fleet.hub.upkeep import HubFacts
from appliance.fleet.link.link import NatsLink, hub_tls
from appliance.fleet.link.nats_client import LinkUser
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.hub_addresses import address_of
from appliance.fleet.membership.hub_set import HeldHubs
from appliance.fleet.status.status import KnownHubs
from appliance.sessions.stopping import wait
from appliance.store.queries import fleet_members, fleet_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from appliance.domain.clock import Clock, Moment
    from appliance.fleet.hub.lead import Change
    from appliance.fleet.membership.identity import FleetFolder, HubAddress, HubSecrets, Membership
    from appliance.fleet.membership.members import FleetMember, Role
    from appliance.store.database import Store
    from appliance.store.queries.fleet_state import FleetRow

log = logging.getLogger(__name__)

LOOK_S = 0.5
STORED_MS = 60_000  # how old what the store has of that may be when this host last led
INBOX = "_INBOX_hub"


@dataclass(frozen=True, slots=True)
class HubStanding:
    """Says what this host is in its fleet. `cluster`: since when the hubs are several, of which it is one; 0: no.

    `serves`: its nats-server runs, or is to. A hub of a cluster is told a hub's secrets first.
    `leads`: it is the one that all accounts are kept on, in generation `gen`, else 0; as far as it knows: the others
    hear from it that they are hubs before there is a majority that could say who leads.
    """

    role: Role
    leads: bool = False
    gen: int = 0
    cluster: int = 0
    serves: bool = False


class HubServing:
    """Looks into the store. `told`: see StoreProgress; of the part that leads, if there is one."""

    def __init__(self, folder: FleetFolder, store: Store, clock: Clock, listen: str) -> None:
        self._folder = folder
        self._store = store
        self._clock = clock
        self._listen = listen
        self._server: HubServer | None = None
        self._running: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._lead: _LeadOfCluster | None = None
        self._looking = asyncio.Lock()
        self._hubs = HeldHubs(clock)
        self._others: tuple[HubAddress, ...] = ()
        self._files: tuple[Membership | None, HubSecrets | None] = None, None
        self._marks: tuple[tuple[int, ...], ...] = ()  # of the files, before they were read
        self._fault = ""
        self._noted_ms: int | None = None  # CLOCK_BOOTTIME
        self.told: Callable[[], Change | None] = lambda: None

    async def standing(self) -> HubStanding:
        """Returns what this host is now. Raises StoreUnavailable."""
        return self._standing(*await self._read())

    async def _read(self) -> tuple[FleetRow | None, list[FleetMember]]:
        async with self._store.read() as db:
            return await fleet_state.read(db), await fleet_members.present(db)

    async def _read_files(self) -> tuple[Membership | None, HubSecrets | None]:
        """Reads them where they have changed since. Raises HostError."""
        marks = self._folder.membership_mark(), self._folder.hub_secrets_mark()
        if marks != self._marks:
            membership = await asyncio.to_thread(self._folder.membership)
            self._files = membership, await asyncio.to_thread(self._folder.hub_secrets)
            self._marks = marks
        return self._files

    def _standing(self, row: FleetRow | None, members: list[FleetMember]) -> HubStanding:
        if row is None or row.role == "spoke":
            return HubStanding("spoke")
        self._hubs.be(row.role)
        hubs = self._hubs.of(members)
        cluster = hubs.since or 1 if hubs.is_cluster else 0
        if row.role == "standby":
            return HubStanding("standby", cluster=cluster, serves=self._server is not None)
        leader = None if self._lead is None else self._lead.leading.leader
        leads = not cluster or leader in (None, row.node_id)
        return HubStanding("hub", leads, row.gen if leads else 0, cluster, serves=True)

    @property
    def fault(self) -> str:
        """Returns why it is not known which of several hubs leads; "": it is, or there is one hub."""
        return "" if self._lead is None else self._lead.leading.fault

    def leads(self) -> bool:
        """Tells whether no other hub leads for certain, on one of several."""
        return self._lead is not None and self._lead.leading.gen is not None

    def known(self, standing: HubStanding, dialled: Mapping[str, str]) -> KnownHubs:
        """Returns what the status says of the hubs. `dialled`: what the members have told this host."""
        if not standing.cluster:
            return KnownHubs(dialled=dialled)
        leading = None if self._lead is None else self._lead.leading
        agreed = self.leads() if standing.leads else leading is not None and bool(leading.leader) and not leading.fault
        return KnownHubs(standing.cluster, agreed, dialled)

    def heard(self) -> Moment | None:
        """Returns when this host, one of several hubs, last led for certain; None: it has not."""
        return None if self._lead is None else self._lead.leading.sure

    def wake(self) -> None:
        """Has it looked at once who leads, as another hub has told what it has."""
        if self._lead is not None:
            self._lead.leading.wake()

    def addresses(self) -> tuple[HubAddress, ...]:
        """Returns where this host dials: its own server first, then other hubs of a cluster; empty: it runs none."""
        return () if self._server is None else (self._server.own, *self._others)

    async def wait_listening(self) -> None:
        """Returns when this host's nats-server lets connections in, if it runs one; after a while in any case."""
        if self._server is not None:
            await self._server.wait_listening()

    async def server(self) -> HubServer:
        """Returns the hub's server, once its files are made. Raises FleetError, HostError or StoreUnavailable."""
        await self.look()
        if self._server is None:
            raise FleetError("this host runs no nats-server")
        await self._server.upkeep.prepare()
        return self._server

    async def run(self, stopping: asyncio.Event) -> None:
        """Looks until `stopping`, and then ends the server."""
        try:
            while not stopping.is_set():
                await self._looked()
                await wait(stopping, LOOK_S)
        finally:
            await self._end_lead()
            await self._end_server()

    async def _looked(self) -> None:
        fault = ""
        try:
            await self.look()
        except (FleetError, HostError, StoreUnavailable) as error:
            fault = str(error)
            if fault != self._fault:
                log.error("this host's nats-server is not as it should be: %s", fault)
        self._fault = fault

    async def look(self) -> None:
        """Looks once. Raises FleetError, HostError or StoreUnavailable: it is to be done again."""
        async with self._looking:
            row, members = await self._read()
            standing = self._standing(row, members)
            membership, of_hub = await self._read_files()
            runs = standing.role == "hub" or standing.cluster > 0
            if row is None or not runs or membership is None or of_hub is None:
                await self._give_up(standing)
                return
            self._others = self._others_of(row.node_id, members)
            await self._keep_server(row.node_id, membership, of_hub)
            await self._keep_lead(standing, membership, of_hub)
            await self._note_heard()

    def _others_of(self, node_id: str, members: list[FleetMember]) -> tuple[HubAddress, ...]:
        hubs = self._hubs.of(members)
        others = (address_of(each.id, each.dialled) for each in hubs.hubs if each.id != node_id)
        return tuple(others) if hubs.is_cluster else ()

    async def _keep_server(self, node_id: str, membership: Membership, of_hub: HubSecrets) -> None:
        if self._running is not None and self._running.done():
            await self._end_server()  # it ended by a fault; it is made anew at once
        if self._server is not None and not self._server.facts.is_of(membership, of_hub):
            await self._end_lead()
            await self._end_server()
        if self._server is None:
            place = hub_place(self._folder.path.parent)
            facts = HubFacts(node_id, membership, of_hub, place.files, self._listen)
            self._server, self._stop = HubServer(facts, place, self._store, self._clock), asyncio.Event()
            self._server.upkeep.hubs_of = self._hubs.of
            self._running = asyncio.create_task(self._server.run(self._stop), name="the hub's server")
            return
        signed_by = self._server.facts.authority
        self._server.trust(membership, of_hub)
        if self._server.facts.authority != signed_by:
            await self._server.upkeep.sign(self._server.facts.authority)

    async def _keep_lead(self, standing: HubStanding, membership: Membership, of_hub: HubSecrets) -> None:
        if self._lead is not None and (self._lead.cluster != standing.cluster or self._lead.has_ended):
            await self._end_lead()
        if self._lead is None and standing.cluster and self._server is not None:
            user = LinkUser("hub-lead", INBOX, NKey.from_seed(of_hub.hub_seed), hub_tls(membership.ca))
            link = NatsLink(self.addresses, user, self._clock)
            progress = StoreProgress(self._store, lambda: self.told())
            self._lead = _LeadOfCluster(standing.cluster, self._server, link, progress, self._clock)
            self._lead.start()
        elif self._lead is not None:
            self._lead.link.trust(membership.ca)

    async def _note_heard(self) -> None:
        """Has the store know when this host last led for certain: started anew without the others, it goes by that."""
        sure = self.heard()
        if sure is not None and (self._noted_ms is None or sure.boot_ms - self._noted_ms >= STORED_MS):
            async with self._store.write() as db:
                await fleet_state.put_heard(db, sure)
            self._noted_ms = sure.boot_ms

    async def _give_up(self, standing: HubStanding) -> None:
        await self._end_lead()
        await self._end_server()
        if standing.role != "hub":  # it may have been one: another host is now
            await asyncio.to_thread(self._remove_files, secrets=standing.role == "spoke")

    def _remove_files(self, *, secrets: bool) -> None:
        files = HubFiles(hub_place(self._folder.path.parent))
        if files.config() is not None:
            files.remove()
        if secrets and self._folder.has_hub_secrets:
            self._folder.forget_hub_secrets()

    async def _end_lead(self) -> None:
        if self._lead is not None:
            lead, self._lead = self._lead, None
            await lead.close()

    async def _end_server(self) -> None:
        if self._running is not None:
            running, self._running, self._server = self._running, None, None
            self._stop.set()
            await _ended(running)


class _LeadOfCluster:
    """Is this host's part in who leads, while the hubs are the same."""

    def __init__(self, cluster: int, server: HubServer, link: NatsLink, progress: StoreProgress, clock: Clock) -> None:
        self.cluster = cluster
        self.link = link
        self._server = server
        self._node_id = node_id = server.facts.node_id
        self._progress = progress
        self._records = KvRecords(link.jetstream, BUCKET, None, COPIES, LEAD_MB * 1024 * 1024)
        self.leading = Leading(node_id, self._records, progress, clock)
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = asyncio.create_task(self._run(), name="which hub leads")

    async def _run(self) -> None:
        await self._server.wait_listening()
        self.link.start()
        # The record of the hubs of before, whose cluster the server leaves at any moment, says nothing of these.
        while not self._stopping.is_set() and not (self._goes_by_these() and await self._appointed()):
            await wait(self._stopping, LOOK_S)
        await self.leading.run(self._stopping)

    def _goes_by_these(self) -> bool:
        return self._server.upkeep.goes_by(self.cluster)

    async def _appointed(self) -> bool:
        """Makes the record that says who leads, if there is none, on the host that is the hub by its store."""
        try:
            first = await self._progress.first()
            if first is None:
                return True  # the record is another's to make
            await appoint(self._records, LeadRecord(self._node_id, first.gen, first))
        except (CutOff, FleetError, StoreUnavailable) as error:
            log.debug("no hub is appointed yet: %s", error)
            return False
        return True

    @property
    def has_ended(self) -> bool:
        """Tells whether a fault has ended it."""
        return self._running is not None and self._running.done()

    async def close(self) -> None:
        self._stopping.set()
        if self._running is not None:
            await _ended(self._running)
        await self.link.close()


async def _ended(task: asyncio.Task[None]) -> None:
    """Waits for the end of a task, and logs what has ended it."""
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s has ended by a fault, and is started anew if it is needed", task.get_name(), exc_info=error)
