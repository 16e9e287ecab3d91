"""A hub's store with its ledger, and spokes that follow it, over the hubs in memory."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.domain import ids
from appliance.domain.entities import Account, Token
from appliance.domain.tiers import Tier
from appliance.fleet.accounts.ledger import SyncLedger
from appliance.fleet.accounts.replica import Reactions, Replica
from appliance.store.database import Store
from appliance.store.queries import accounts, fleet_changes, fleet_state, tokens
from tests.support.fleet.bus import Bus
from tests.support.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

FRA, AMS, LIS = (f"nod_{digit * 24}" for digit in "123")
REPLICATED = {
    "accounts": "SELECT id, name, tier, disabled, created_at, deleted_at FROM accounts ORDER BY id",
    "tokens": "SELECT id, account_id, hash, label, created_at, expires_at, revoked_at FROM tokens ORDER BY id",
    "members": "SELECT * FROM fleet_members ORDER BY id",
    "terms": "SELECT * FROM fleet_terms",
}


def replicated(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """What the hub's store and a spoke's are to have alike."""
    with closing(sqlite3.connect(path)) as db:
        return {what: db.execute(sql).fetchall() for what, sql in REPLICATED.items()}


@dataclass
class Followed:
    """The hub: its store, and the ledger that answers from it."""

    path: Path
    bus: Bus
    store: Store
    ledger: SyncLedger
    claims: str = "claims-1"

    async def change(self, sql: str, *parameters: object) -> None:
        async with self.store.write() as db:
            await db.execute(sql, parameters)
        await self.ledger.look()

    async def account(self, name: str, number: int = 1) -> Account:
        """A new account with so many tokens."""
        made = Account(ids.account_id(), name, Tier.PAID, False, 1)
        async with self.store.write() as db:
            await accounts.insert(db, made)
            for _ in range(number):
                token = Token(ids.token_id(), name, made.tier, "laptop", 2, None, None)
                await tokens.insert(db, made, token, ids.token_hash(ids.token_secret()))
        await self.ledger.look()
        return made

    async def answer_from(self, path: Path, gen: int = 1) -> None:
        """Another hub takes the place of this one, with that store."""
        await self.store.close()
        self.bus.subscriptions.clear()
        self.path, self.store = path, await Store.open(path)
        self.ledger = SyncLedger(self.store, gen, self.named)
        await self.ledger.listen(self.bus.hub())
        await self.ledger.look()

    async def named(self) -> str:
        return self.claims

    async def copied(self, name: str) -> Path:
        """A backup of its store."""
        copy = self.path.with_name(name)
        async with self.store.snapshot() as db:
            await db.execute_fetchall("SELECT count(*) FROM accounts")
            with closing(sqlite3.connect(self.path)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
        return copy


@dataclass
class Follower:
    """A spoke, and what its replica has asked the rest of the exit to do."""

    path: Path
    store: Store
    replica: Replica
    clock: VirtualClock
    rings: int = 0
    members: int = 0
    terms: list[str] = field(default_factory=list)
    claims: int = 0
    older: int = 0  # hubs that were found

    def rung(self) -> None:
        self.rings += 1

    async def members_changed(self) -> None:
        self.members += 1

    async def terms_changed(self, text: str) -> None:
        self.terms.append(text)

    def claims_lost(self) -> None:
        self.claims += 1

    def found_older(self) -> None:
        self.older += 1

    @property
    def reactions(self) -> Reactions:
        return Reactions(self.rung, self.members_changed, self.terms_changed, self.claims_lost, self.found_older)


async def hub(folder: Path, bus: Bus) -> Followed:
    path = folder / "hub.sqlite"
    store = await Store.open(path)
    async with store.write() as db:
        await fleet_state.enter(db, "hub", FRA, 1)
        await fleet_changes.record(db)
    followed = Followed(path, bus, store, SyncLedger(store, 1))
    followed.ledger = SyncLedger(store, 1, followed.named)
    await followed.ledger.listen(bus.hub())
    return followed


async def spoke(folder: Path, bus: Bus, node: str) -> Follower:
    path, clock = folder / f"{node}.sqlite", VirtualClock()
    store = await Store.open(path)
    async with store.write() as db:
        await fleet_state.enter(db, "spoke", node, 1)
    return await following(Follower(path, store, None, clock), bus, node)  # type: ignore[arg-type]  # made at once


async def following(follower: Follower, bus: Bus, node: str) -> Follower:
    """The replica of a process that has just started on this store."""
    link = bus.node(node)
    follower.replica = Replica(link, follower.store, node, follower.clock, follower.reactions)
    await follower.replica.load()
    return follower


@asynccontextmanager
async def followed(folder: Path, *nodes: str) -> AsyncIterator[tuple[Followed, list[Follower]]]:
    bus = Bus()
    one = await hub(folder, bus)
    spokes = [await spoke(folder, bus, node) for node in nodes]
    try:
        yield one, spokes
    finally:
        for each in (one, *spokes):
            await each.store.close()
    assert bus.failures == []


async def turn(one: Followed, spokes: Iterable[Follower]) -> None:
    """The hub's next beat, with all that follows from it."""
    await one.ledger.look()
    for each in spokes:
        each.replica.beat(*one.ledger.position)
        if each.replica.behind:
            await each.replica.follow()
