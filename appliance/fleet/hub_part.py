"""Builds what a hub does beside being an exit: its nats-server, the ledger, the fold, and the desks for members."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from appliance.fleet.accounts import terms
from appliance.fleet.accounts.ledger import SyncLedger
from appliance.fleet.claims.claims import KEY_LAPSES_MS, NAME_LAPSES_MS
from appliance.fleet.claims.kv import KvRecords
from appliance.fleet.claims.ledger import ClaimLedger
from appliance.fleet.hub import nats_program
from appliance.fleet.hub.config import LEASES_MB
from appliance.fleet.hub.control import HubControl
from appliance.fleet.hub.files import HubFiles, hub_place
from appliance.fleet.hub.nats_server import NatsServer
from appliance.fleet.hub.partings import HubPartings
from appliance.fleet.hub.rotation import HubRotation, RotationSteps
from appliance.fleet.hub.upkeep import HOUR_MS, HubFacts, HubUpkeep
from appliance.fleet.hub.watch import HubWatch
from appliance.fleet.joining.desk import JoinDesk
from appliance.fleet.joining.leaving import LeaveDesk
from appliance.fleet.joining.told_dialled import ToldDialled
from appliance.fleet.link.link import NatsLink, hub_tls
from appliance.fleet.link.nats_client import LinkUser
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.identity import FleetFolder, HubAddress
from appliance.fleet.quota.lease_ledger import LeaseLedger
from appliance.fleet.reports import away
from appliance.fleet.reports.fold import Fold
from appliance.fleet.reports.fold_answers import FoldAnswers
from appliance.fleet.reports.stream_upkeep import StreamUpkeep
from appliance.fleet.reports.streams import NatsStreams
from appliance.store.queries import fleet_changes, fleet_fold, fleet_members

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from typing import Any

    from appliance.config.settings import Settings
    from appliance.domain.clock import Clock
    from appliance.fleet.accounts.sync_messages import SyncRequest
    from appliance.fleet.link.link import LinkState
    from appliance.fleet.membership.identity import HubSecrets, Membership
    from appliance.fleet.membership.roster import Roster
    from appliance.store.database import Store
    from appliance.store.queries.fleet_changes import Head

    Task = Callable[[asyncio.Event], Coroutine[Any, Any, None]]

EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]"}  # noqa: S104 (what is listened on)
KEYS, DEVICE_NAMES, LEASES = "keys", "dev", "quota"  # buckets of JetStream
JETSTREAM = "_INBOX_hub"
SERVER_STARTS_S, POLL_S = 5.0, 0.05


@dataclass(frozen=True, slots=True)
class HubPlan:
    """Holds what a hub is made from. `listen`: HOST:PORT. `base`: see FleetRow."""

    state_dir: Path
    membership: Membership
    of_hub: HubSecrets
    listen: str
    gen: int
    node_id: str
    base: Head


def own_address(listen: str, server_name: str) -> HubAddress:
    """Returns where this host reaches its own hub: what others dial may not lead back to it from here."""
    host, _, port = listen.rpartition(":")
    return HubAddress(f"{EVERYWHERE.get(host, host)}:{port}", server_name)


class HubPart:
    """Holds a hub's parts. `listen` begins to answer, `tasks` are to be run, and the links closed at the end."""

    def __init__(self, plan: HubPlan, store: Store, roster: Roster, clock: Clock) -> None:
        place = hub_place(plan.state_dir)
        facts = HubFacts(plan.membership, plan.of_hub, place.files, plan.listen)
        self._own = own = own_address(plan.listen, facts.server_name)
        tls = hub_tls(plan.membership.ca)

        def link(name: str, inbox: str, seed: str, changed: Callable[[LinkState], None]) -> NatsLink:
            return NatsLink(lambda: (own,), LinkUser(name, inbox, NKey.from_seed(seed), tls), clock, changed)

        self.link = link("hub", JETSTREAM, plan.of_hub.hub_seed, self._changed)
        self.system = link("hub-system", "_INBOX_sys", plan.of_hub.system_seed, lambda _state: None)
        self._roster, self._store = roster, store
        streams, disk = NatsStreams(self.link.jetstream), plan.state_dir
        self.fold = fold = Fold(store, streams, roster.present, lambda: shutil.disk_usage(disk).free)
        keys, names, leases = self._buckets()
        self.claims = ClaimLedger(keys, names, clock, self._owner_of, roster.is_present, beside=(leases,), gen=plan.gen)
        self.leases = LeaseLedger(leases, store, clock, roster.present, self.claims.name, plan.gen)
        self.stream_upkeep = StreamUpkeep(fold, streams, roster.present, clock, (keys, names))
        self.partings = HubPartings(store, self.claims, roster.is_present)
        self.trusting: Callable[[Membership], None] = lambda _membership: None  # what else goes by it
        steps = RotationSteps(lambda authority: self.upkeep.sign(authority), self._trust)
        self.rotation = HubRotation(FleetFolder(plan.state_dir), store, roster, clock, plan.of_hub, steps)
        self.dialled = ToldDialled(store, roster)
        self.ledger = SyncLedger(store, plan.gen, self.claims.name, plan.base, self._told)
        control = HubControl(HubFiles(place), nats_program.find, self.system)
        self.upkeep = HubUpkeep(store, facts, control, clock)
        self.watch = HubWatch(control, facts.server_name, self.upkeep.put_out, clock)
        self.server = NatsServer(place, nats_program.find)
        self._by_unit = place.by_unit
        self._plan = plan
        self._joining = JoinDesk(store, plan.membership, self.upkeep.apply, clock, plan.of_hub)
        self._desks = (
            self._joining,
            LeaveDesk(store, clock, self.fold.catch_up),
            FoldAnswers(store, self.fold, roster.is_present),
            self.claims,
            self.leases,
            self.ledger,
            self.fold,
        )

    def _buckets(self) -> tuple[KvRecords, KvRecords, KvRecords]:
        keys = KvRecords(self.link.jetstream, KEYS, timedelta(milliseconds=KEY_LAPSES_MS + HOUR_MS))
        names = KvRecords(self.link.jetstream, DEVICE_NAMES, timedelta(milliseconds=NAME_LAPSES_MS + HOUR_MS))
        return keys, names, KvRecords(self.link.jetstream, LEASES, None, most_bytes=LEASES_MB * 1024 * 1024)

    def _trust(self, membership: Membership, of_hub: HubSecrets) -> None:
        for link in (self.link, self.system):
            link.trust(membership.ca)
        self.upkeep.trust(membership, of_hub)
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

    async def connect(self) -> None:
        """Begins to connect, once the nats-server of this host answers; after a while in any case."""
        host, _, port = self._own.address.rpartition(":")
        with suppress(TimeoutError):
            async with asyncio.timeout(SERVER_STARTS_S):
                while not await _answers(host.strip("[]"), int(port)):  # noqa: ASYNC110 (another process listens)
                    await asyncio.sleep(POLL_S)
        self.link.start()
        self.system.start()

    async def listen(self) -> None:
        """Has what comes answered from when the link is connected, and the server's files made if they are lacking.

        Raises FleetError, HostError or StoreUnavailable.
        """
        async with self._store.write() as db:
            if not await fleet_changes.is_recorded(db):  # by this version
                await fleet_changes.record(db)
            await fleet_members.put_dialled(db, self._plan.node_id, self._plan.membership.hubs[0].address)
        await self.upkeep.prepare()
        for desk in self._desks:
            await desk.listen(self.link)

    def tasks(self) -> dict[str, Task]:
        """Returns what runs until the event that each is given."""
        return {
            "the hub's upkeep": self.upkeep.run,
            "the fleet's authority": self.rotation.run,
            "the watch of the hub's connections": self.watch.run,
            "the ledger": self.ledger.run,
            "the roster": self._follow_roster,
            "the upkeep of streams": self.stream_upkeep.run,
            "what is to be freed": self.partings.run,
        }

    def servers(self) -> dict[str, Task]:
        """Returns what is to run until all else of the fleet has ended."""
        return {} if self._by_unit else {"nats-server": self.server.run}

    async def close(self) -> None:
        await self.link.close()
        await self.system.close()


async def _answers(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
