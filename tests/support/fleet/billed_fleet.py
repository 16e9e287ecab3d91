"""Whole exits that report their sessions over the bus in memory; the first one is the hub, which folds them.

async with billed_fleet(tmp_path) as billed:        # "fra" is the hub, "ams" is not
    await billed.use("ams", opened["id"], 1000)
    await billed.report()
    invoice = await billed.invoice(ada.account, "2026-09")
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.domain.charges import month_bounds
from appliance.domain.fleet_member import FleetMember
from appliance.fleet.reports.fold import Fold
from appliance.fleet.reports.fold_answers import FoldAnswers
from appliance.fleet.reports.hub_folds import HubFolds
from appliance.fleet.reports.reporting import Reporting, ReportingPace
from appliance.metering import fleet_invoices, invoices
from appliance.store.queries import fleet_members, fleet_reports, fleet_state
from tests.support.fleet.bus import Bus
from tests.support.fleet.bus_streams import BusStreams
from tests.support.fleet.exits_under_test import fleet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from appliance.domain.entities import Account
    from appliance.metering.fleet_invoices import FleetInvoice
    from appliance.metering.invoices import Invoice
    from tests.support.fleet.exits_under_test import ExitsUnderTest

TURNS = 12  # of reporting, in which all is told that can be
PRICES = '[pricing]\ncurrency = "eur"\nmillicents_per_minute = 1001\nmillicents_per_gib = 7000000\n'
SEPTEMBER, OCTOBER = "2026-09", "2026-10"  # the second begins `BEFORE_S` after the exits have started
BEFORE_S = 60


@dataclass
class BilledFleet:
    exits: ExitsUnderTest
    bus: Bus
    streams: BusStreams
    fold: Fold = field(init=False)
    reporting: dict[str, Reporting] = field(default_factory=dict)

    async def start(self) -> None:
        hub = self.exits[self.hub].exit_
        self.fold = Fold(hub.store, self.streams, lambda: [h.node_id for h in self.exits.hosts.values()])
        answers = FoldAnswers(hub.store, self.fold, lambda _: True)
        await answers.listen(self.bus.hub())
        for number, (name, host) in enumerate(self.exits.hosts.items(), 1):
            await self.streams.make(host.node_id)
            await self.begin_process(name)
            role = "hub" if name == self.hub else "spoke"
            member = FleetMember(host.node_id, f"{name}1", name, role, f"U{number}", bytes(32), joined_at=number)
            async with hub.store.write() as db:
                await fleet_members.put(db, member)
        self.exits.folds = HubFolds(hub.store, lambda _: True)
        self.exits[self.hub].wire()
        async with hub.store.write() as db:
            await fleet_state.enter(db, "hub", self.exits.hub, 1)

    @property
    def hub(self) -> str:
        return next(iter(self.exits.hosts))

    async def begin_process(self, name: str, answer_s: float = 30) -> None:
        """A process that reports starts on the exit's store."""
        host = self.exits[name]
        async with host.exit_.store.write() as db:
            await fleet_reports.begin_reporting(db)
        link, pace = self.bus.node(host.node_id), ReportingPace(report_s=0, answer_s=answer_s)
        self.reporting[name] = Reporting(host.node_id, link, host.exit_.store, host.exit_.clock, pace)

    async def use(self, name: str, session_id: str, count: int, after: float = 2) -> None:
        """The session's client moves so many bytes, a tenth of them up, and its exit counts them after that time."""
        exit_ = self.exits[name].exit_
        exit_.tunnel.add_traffic(exit_.key_of(session_id), rx=count // 10, tx=count - count // 10)
        await exit_.tick(after)

    async def report(self, *names: str) -> None:
        """These exits, or all, report until all is told."""
        for name in names or self.exits.hosts:
            reporting = self.reporting[name]
            for _ in range(TURNS):
                if not await reporting.step() and reporting.settled and not await reporting.unsent():
                    break
            await self.fold.catch_up(self.exits[name].node_id)

    async def pass_by(self, seconds: float) -> None:
        """Time passes everywhere, and every exit counts."""
        for host in self.exits.hosts.values():
            await host.exit_.tick(seconds)

    async def own_invoice(self, name: str, account: Account, month: str) -> Invoice:
        """As `invoice` on that exit alone."""
        exit_ = self.exits[name].exit_
        async with exit_.store.snapshot() as db:
            return await invoices.read(db, account, month, exit_.clock)

    async def invoice(self, account: Account, month: str) -> FleetInvoice:
        """As `invoice` on the hub."""
        hub = self.exits[self.hub].exit_
        async with hub.store.snapshot() as db:
            own = await invoices.read(db, account, month, hub.clock)
            return await fleet_invoices.read(db, own, self.exits.hub, hub.clock.wall_ms)


@asynccontextmanager
async def billed_fleet(folder: Path, config_text: str = PRICES) -> AsyncIterator[BilledFleet]:
    bus = Bus()
    async with fleet(folder, "fra", "ams", config_text=config_text) as exits:
        _, ends = month_bounds(SEPTEMBER)
        for host in exits.hosts.values():
            await host.exit_.tick((ends - host.exit_.clock.wall_ms) / 1000 - BEFORE_S)
        billed = BilledFleet(exits, bus, BusStreams(bus))
        await billed.start()
        yield billed
        assert bus.failures == []
