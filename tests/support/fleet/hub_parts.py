"""What three hosts with stores do as hubs beside real nats-servers: follow, lead, yield; each step when a test says so.

async with hub_parts(hubs, folder) as parts:
    parts[0].lead()
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.domain.clock import HostClock
from appliance.domain.entities import Account
from appliance.domain.errors import FleetError
from appliance.domain.fleet_member import FleetMember
from appliance.domain.tiers import Tier
from appliance.fleet.accounts import generations
from appliance.fleet.accounts.ledger import SyncLedger
from appliance.fleet.accounts.replica import Reactions, Replica
from appliance.fleet.claims.kv import KvRecords
from appliance.fleet.hub.cluster import COPIES
from appliance.fleet.hub.config import LEAD_MB, member_inbox
from appliance.fleet.hub.leading import BUCKET, Leading
from appliance.fleet.hub.progress import StoreProgress
from appliance.fleet.link.link import hub_tls
from appliance.fleet.link.nats_client import LinkUser
from appliance.store.database import Store
from appliance.store.queries import accounts, fleet_changes, fleet_members, fleet_state
from tests.support.fleet.three_hubs import ADDRESSES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from appliance.fleet.accounts.generations import Generation
    from appliance.fleet.hub.lead import Change
    from appliance.fleet.link.link import NatsLink
    from appliance.store.queries.fleet_state import FleetRow
    from tests.support.fleet.three_hubs import ThreeHubs

NODES = tuple(f"nod_{digit * 24}" for digit in "123")
SECONDS = 60


async def until(true: Callable[[], Awaitable[object]], what: str) -> float:
    """Asks until the answer is true, where FleetError is one that is not; returns how long it took."""
    began, fault = time.monotonic(), ""
    while time.monotonic() < began + SECONDS:
        try:
            if await true():
                return time.monotonic() - began
        except FleetError as error:
            fault = f": {error!r}"
        await asyncio.sleep(0.05)
    raise TimeoutError(f"{what}{fault}")


@dataclass
class PartOfHub:
    """One of the hosts: the hub of generation 1 is the first, the others stand by. It has no link until it needs it."""

    number: int
    hubs: ThreeHubs
    store: Store
    leading: Leading | None = None
    ledger: SyncLedger | None = None
    links: list[NatsLink] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    running: asyncio.Task[None] | None = None

    @property
    def node(self) -> str:
        return NODES[self.number]

    async def row(self) -> FleetRow:
        async with self.store.read() as db:
            row = await fleet_state.read(db)
        assert row is not None
        return row

    async def account(self, name: str) -> None:
        async with self.store.write() as db:
            await accounts.insert(db, Account(f"acc_{name}", name, Tier.FREE, disabled=False, created_at=1))

    async def names(self) -> set[str]:
        async with self.store.read() as db:
            rows = await db.execute_fetchall("SELECT name FROM accounts WHERE deleted_at IS NULL")
        return {row["name"] for row in rows}

    async def head(self) -> Change | None:
        return await StoreProgress(self.store, lambda: None).first()

    def link(self) -> NatsLink:
        self.links.append(self.hubs.link(self.number))
        return self.links[-1]

    def lead(self) -> Leading:
        """Takes part in who leads from now on."""
        records = KvRecords(self.link().jetstream, BUCKET, None, COPIES, LEAD_MB * 2**20)
        progress = StoreProgress(self.store, lambda: None if self.ledger is None else self.ledger.told)
        self.leading = Leading(self.node, records, progress, HostClock())
        self.stopping = asyncio.Event()
        self.running = asyncio.create_task(self.leading.run(self.stopping))
        return self.leading

    async def answer(self) -> None:
        """Answers the others of its store, in the generation that it leads."""
        row, link = await self.row(), self.link()
        await link.wait_connected(SECONDS)
        self.ledger = SyncLedger(self.store, row.gen, base=row.base, is_standby=lambda _node: True)
        await self.ledger.listen(link)

    async def follow(self) -> None:
        """Has all that the one that answers has, and tells it so."""

        async def nothing(*_: object) -> None:
            return None

        link = self.hubs.member(self.node, self.number)
        self.links.append(link)
        await link.wait_connected(SECONDS)
        replica = Replica(
            link, self.store, self.node, HostClock(), Reactions(lambda: None, nothing, nothing, lambda: None)
        )

        async def followed() -> bool:
            return await replica.follow() and await replica.follow()

        await replica.load()
        await until(followed, "what is new is followed")

    async def newer(self) -> Generation | None:
        user = LinkUser(
            self.node, member_inbox(self.node), self.hubs.keys[self.node], hub_tls(self.hubs.authority.certificate)
        )
        others = self.hubs.at(*(number for number in range(len(NODES)) if number != self.number))
        return await generations.newer_than((await self.row()).gen, user, self.node, others, HostClock())

    async def yields(self) -> int | None:
        found = None

        async def asked() -> bool:
            nonlocal found
            found = await self.newer()
            return found is not None

        await until(asked, "a newer generation")
        assert found is not None
        async with self.store.write() as db:
            return await generations.yield_to(db, found, 9)

    async def stop(self) -> None:
        """Its process is gone; its nats-server, and its store, stay."""
        self.stopping.set()
        if self.running is not None:
            await self.running
        links, self.links, self.leading, self.ledger, self.running = self.links, [], None, None, None
        for link in links:
            with suppress(FleetError):
                await link.close()


async def _made(folder: Path, number: int, hubs: ThreeHubs) -> PartOfHub:
    store = await Store.open(folder / f"store{number}.sqlite")
    part = PartOfHub(number, hubs, store)
    async with store.write() as db:
        await fleet_state.enter(db, "standby" if number else "hub", part.node, 1)
        if not number:
            await fleet_changes.record(db)
            for each, node in enumerate(NODES):
                role, name, key = "standby" if each else "hub", f"n{each}", hubs.keys[node].public
                at = f"{ADDRESSES[each]}:7423"
                await fleet_members.put(
                    db, FleetMember(node, name, name, role, key, node[4:36].encode() + bytes(8), 1, None, at, 5)
                )
    return part


@asynccontextmanager
async def hub_parts(hubs: ThreeHubs, folder: Path) -> AsyncIterator[list[PartOfHub]]:
    """The hosts of `hubs`, whose `nodes` are NODES."""
    parts = [await _made(folder, number, hubs) for number in range(len(NODES))]
    try:
        yield parts
    finally:
        for part in parts:
            await part.stop()
            await part.store.close()
