"""Limits that hold over exits under test: the real leasing of each exit, and the ledger's decisions, in memory.

async with lent(exits) as limits:
    await limits.pass_time(0.25)       # clocks, ticks, requests
    limits.away.add("ams")             # no ledger answers ams
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from unittest.mock import patch

import msgspec

from appliance.domain.errors import CutOff
from appliance.fleet.quota import escrow, opening_place
from appliance.fleet.quota.escrow import LedgerFacts, QuotaRecord
from appliance.fleet.quota.holder import Sharing
from appliance.fleet.quota.kept_leases import KeptLeases
from appliance.fleet.quota.lease_requests import LeaseRequests
from appliance.fleet.quota.leasing import Leasing
from appliance.fleet.quota.messages import AllNoted, Ask, LeaseTold, ToldAll
from appliance.fleet.quota.own_use import OwnUse
from appliance.fleet.quota.retelling import Retelling
from appliance.store.queries import fleet_state

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from appliance.fleet.link.wire import HubLink
    from tests.support.fleet.exits_under_test import ExitsUnderTest, FleetHost

LOOKS_S = 0.02
SOON_S = (0.01, 0.01)


@dataclass
class LedgerOfLimits:
    """Decides as the hub's ledger does. `asked`: how often each host has; `under_way`: requests without an answer yet,
    as long as it is not `open`."""

    exits: ExitsUnderTest
    away: set[str] = field(default_factory=set)
    records: dict[str, QuotaRecord] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)  # node ids
    memory: str = "first"
    under_way: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, host: FleetHost) -> LinkToLimits:
        return LinkToLimits(self, host)

    def lost(self) -> None:
        """The hub's disk dies."""
        self.records.clear()
        self.told.clear()
        self.memory += " and another"

    def decide(self, host: FleetHost, ask: Ask) -> LeaseTold | AllNoted:
        if isinstance(ask, ToldAll):
            self.told.add(host.node_id)
            return AllNoted(ask.memory == self.memory)
        self.asked[host.name] = self.asked.get(host.name, 0) + 1
        exit_ = host.exit_
        tier = exit_.rows("SELECT tier FROM accounts WHERE id = ?", ask.account)[0][0]
        given = LedgerFacts(
            limits=exit_.parts.services.terms.tiers[tier],
            members=[each.node_id for each in self.exits.hosts.values()],
            told=self.told,
            lends=True,
            now_ms=exit_.clock.wall_ms,
        )
        record = self.records.get(ask.account, QuotaRecord())
        self.records[ask.account], told = escrow.decide(record, host.node_id, ask, given)
        return told


@dataclass
class LinkToLimits:
    """Is as much of a HubLink as leasing asks for."""

    ledger: LedgerOfLimits
    host: FleetHost

    async def request(self, subject: str, data: bytes, timeout_s: float) -> bytes:
        del timeout_s
        assert subject == f"wga.led.{self.host.node_id}.lease"
        if self.host.name in self.ledger.away:
            raise CutOff("cut off")
        self.ledger.under_way += 1
        await self.ledger.open.wait()
        self.ledger.under_way -= 1
        return msgspec.json.encode(self.ledger.decide(self.host, msgspec.json.decode(data, type=Ask)))


@dataclass
class LentLimits:
    """`strict`: exits that are cut off use nothing more than they were lent."""

    exits: ExitsUnderTest
    ledger: LedgerOfLimits
    strict: bool = False
    leasing: dict[str, Leasing] = field(default_factory=dict)

    @property
    def away(self) -> set[str]:
        """The names of hosts that reach no ledger."""
        return self.ledger.away

    async def join(self, host: FleetHost) -> None:
        """The exit's server begins to borrow, as it does in a fleet."""
        parts = host.exit_.parts
        async with parts.records.store.write() as db:
            if await fleet_state.read(db) is None:
                await fleet_state.enter(db, "hub", host.node_id, 1)
        link: HubLink = self.ledger.of(host)  # type: ignore[assignment]  # as much of one as is asked
        leasing = Leasing(
            LeaseRequests(link, host.node_id),
            OwnUse(parts.records, parts.services.terms, parts.peers.exit_lock),
            KeptLeases(parts.records.store),
            parts.records.clock,
            parts.records.lending,
            sharing=lambda: Sharing(len(self.exits.hosts), strict=self.strict),
            wake=parts.wakeup.reschedule,
        )
        await leasing.load()
        parts.records.lending.enter(leasing)
        self.leasing[host.name] = leasing

    async def restart(self, name: str) -> None:
        """The server of the exit is started anew."""
        await self.leasing[name].save()
        await self.exits[name].restart()
        await self.join(self.exits[name])

    async def pass_time(self, seconds: float, look: float = 0.25) -> None:
        """Lets time pass on all exits, in looks."""
        for _ in range(max(1, round(seconds / look))):
            for host in self.exits.hosts.values():
                host.exit_.clock.advance(look)
                await host.exit_.parts.ticker.tick(whole=False)
                await host.exit_.settled()
            await self.asked()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Has the exits look and ask by themselves meanwhile, faster than time passes."""

        async def run() -> None:
            while True:
                await self.pass_time(0.25)
                await asyncio.sleep(LOOKS_S)

        task = asyncio.create_task(run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def tell_again(self) -> None:
        """All exits see that the ledger's memory is another one."""

        async def memory() -> str:
            return self.ledger.memory

        for name, leasing in self.leasing.items():
            link: HubLink = self.ledger.of(self.exits[name])  # type: ignore[assignment]  # as much of one as is asked
            await Retelling(leasing, LeaseRequests(link, self.exits[name].node_id), memory).look()

    async def asked(self) -> None:
        """All is asked that is due."""
        for leasing in self.leasing.values():
            leasing.look()
            await leasing.settled()
            await leasing.save()


@asynccontextmanager
async def lent(
    exits: ExitsUnderTest, *, strict: bool = False, again_s: tuple[float, ...] = SOON_S
) -> AsyncIterator[LentLimits]:
    """`again_s`: after which pauses an opening that gets no room asks again."""
    limits = LentLimits(exits, LedgerOfLimits(exits), strict)
    limits.ledger.open.set()
    for host in exits.hosts.values():
        await limits.join(host)
    await limits.tell_again()  # else less is lent, as others may have borrowed more than the ledger knows
    with patch.object(opening_place, "AGAIN_S", again_s):
        yield limits
