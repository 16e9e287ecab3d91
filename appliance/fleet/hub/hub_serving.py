"""Has this host run a nats-server while it is the hub, or one of several, and take part in who of these leads."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain.errors import FleetError, HostError, StoreUnavailable
from appliance.fleet.hub.lead_of_cluster import LeadOfCluster, ended
from appliance.fleet.hub.progress import StoreProgress
from appliance.fleet.link.link import NatsLink, hub_tls
from appliance.fleet.link.nats_client import LinkUser
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.hub_addresses import address_of
from appliance.fleet.membership.hub_set import HeldHubs
from appliance.fleet.status.status import KnownHubs
from appliance.sessions.stopping import wait
from appliance.store.commits import StoreNews
from appliance.store.queries import fleet_members, fleet_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from appliance.domain.clock import Clock, Moment
    from appliance.fleet.hub.hub_server import HubServer
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
        self._lead: LeadOfCluster | None = None
        self._looking = asyncio.Lock()
        self._hubs = HeldHubs(clock)
        self._others: tuple[HubAddress, ...] = ()
        self._files: tuple[Membership | None, HubSecrets | None] = None, None
        self._marks: tuple[tuple[int, ...], ...] = ()  # of the files, before they were read
        self._news = StoreNews(store.commits)
        self._is_settled = False  # by what was last read, and no matter how much time passes
        self._fault = ""
        self._noted_ms: int | None = None  # CLOCK_BOOTTIME
        self.told: Callable[[], Change | None] = lambda: None

    async def standing(self) -> HubStanding:
        """Returns what this host is now. Raises StoreUnavailable."""
        return self._standing(*await self._read())

    async def _read(self) -> tuple[FleetRow | None, list[FleetMember]]:
        async with self._store.read() as db:
            return await fleet_state.read(db), await fleet_members.present(db)

    def _marks_now(self) -> tuple[tuple[int, ...], ...]:
        return self._folder.membership_mark(), self._folder.hub_secrets_mark()

    async def _read_files(self) -> tuple[Membership | None, HubSecrets | None]:
        """Reads them where they have changed since. Raises HostError."""
        marks = self._marks_now()
        if marks != self._marks:
            membership = await asyncio.to_thread(self._folder.membership)
            self._files = membership, await asyncio.to_thread(self._folder.hub_secrets)
            self._marks = marks
        return self._files

    def _standing(self, row: FleetRow | None, members: list[FleetMember]) -> HubStanding:
        if row is None or row.role == "spoke":
            self._hubs.be("spoke")
            return HubStanding("spoke")
        self._hubs.be(row.role)
        hubs = self._hubs.of(members)
        cluster = hubs.since or 1 if hubs.is_cluster else 0
        if row.role == "standby":
            return HubStanding("standby", cluster=cluster, serves=self._server is not None)
        leader = None if self._lead is None else self._lead.leading.leader
        lacks = self._lead is not None and self._lead.leading.lacks
        leads = not cluster or (leader in (None, row.node_id) and not lacks)
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
            has_ended = self._running is not None and self._running.done()
            if self._is_settled and not (has_ended or self._news.is_any() or self._marks_now() != self._marks):
                return
            self._is_settled = False
            self._news.is_any()
            standing = await self._follow()
            self._news.taken()
            self._is_settled = not standing.cluster

    async def _follow(self) -> HubStanding:
        """Makes of this host what store and files say that it is, and returns that."""
        row, members = await self._read()
        standing = self._standing(row, members)
        membership, of_hub = await self._read_files()
        runs = standing.role == "hub" or standing.cluster > 0
        if row is None or not runs or membership is None or of_hub is None:
            await self._give_up(standing)
            return standing
        self._others = self._others_of(row.node_id, members)
        await self._keep_server(row.node_id, membership, of_hub)
        await self._keep_lead(standing, membership, of_hub)
        await self._note_heard()
        return standing

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
            await asyncio.to_thread(_import_server)
            from appliance.fleet.hub.files import hub_place
            from appliance.fleet.hub.hub_server import HubServer
            from appliance.fleet.hub.upkeep import HubFacts

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
            self._lead = LeadOfCluster(standing.cluster, self._server, link, progress, self._clock)
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
        from appliance.fleet.hub.files import HubFiles, hub_place

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
            await ended(running)


def _import_server() -> None:
    import appliance.fleet.hub.hub_server  # noqa: F401 (a spoke does without its memory)
