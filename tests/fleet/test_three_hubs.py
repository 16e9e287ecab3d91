"""Three hubs, three real nats-servers: what is kept three times, who leads, and what is left when some are lost."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pytest

from appliance.domain.clock import HostClock
from appliance.domain.errors import FleetError, NoResponder, NotAnswered
from appliance.fleet.claims.kv import KvRecords
from appliance.fleet.claims.ledger import ClaimLedger
from appliance.fleet.hub.cluster import COPIES
from appliance.fleet.hub.config import LEAD_MB
from appliance.fleet.hub.lead import Change, Followed, LeadRecord
from appliance.fleet.hub.leading import BUCKET, Leading, appoint
from appliance.fleet.reports.streams import NatsStreams
from tests.support.fleet.claims_kept import keeps_the_contract, races
from tests.support.fleet.link_contract import AMS, FRA
from tests.support.fleet.three_hubs import ADDRESSES, ThreeHubs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from appliance.fleet.link.link import NatsLink
    from appliance.fleet.link.wire import Message

SECONDS = 60
HUBS = range(len(ADDRESSES))
STATE = f"wga.state.{AMS}.s.1.0"


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
class FollowedAccounts:
    """A hub's changes. The others follow by reading them from `of`, once it leads."""

    of: dict[str, FollowedAccounts]
    at: Change = field(default_factory=lambda: Change(1, 1, "m1"))
    others: Change | None = None
    leading: Leading | None = None
    noted: Change | None = None

    async def acknowledge(self, change: Change) -> None:
        self.noted = change

    async def followed(self, _kept: Change | None) -> Followed:
        for other in self.of.values():
            gen = None if other.leading is None else other.leading.gen
            if other is not self and gen is not None and gen >= self.at.gen and gen == other.at.gen:
                self.at = other.others = other.at
                assert other.leading is not None
                other.leading.wake()
        return Followed(self.at)

    def told(self) -> Change | None:
        return self.others

    async def require_writable(self) -> None:
        """It is in memory."""

    async def begin(self, gen: int) -> None:
        self.at, self.others = Change(gen, self.at.rev, self.at.mark), None

    def change(self) -> Change:
        self.at = Change(self.at.gen, self.at.rev + 1, f"m{self.at.rev + 1}")
        return self.at


class ThreeParts:
    """The three hubs' parts in deciding which leads, each at its own server."""

    def __init__(self, links: list[NatsLink]) -> None:
        self.accounts: dict[str, FollowedAccounts] = {}
        self.parts: list[tuple[Leading, asyncio.Event, asyncio.Task[None]]] = []
        for number, link in enumerate(links):
            records = KvRecords(link.jetstream, BUCKET, None, COPIES, LEAD_MB * 2**20)
            name = f"hub{number}"
            accounts = self.accounts[name] = FollowedAccounts(self.accounts)
            accounts.leading = Leading(name, records, accounts, HostClock())
            stopping = asyncio.Event()
            self.parts.append((accounts.leading, stopping, asyncio.ensure_future(accounts.leading.run(stopping))))

    async def stop(self, number: int) -> None:
        _, stopping, running = self.parts[number]
        stopping.set()
        await running

    def leading(self) -> list[int]:
        return [number for number, (part, *_) in enumerate(self.parts) if part.gen is not None]

    async def acknowledges(self, number: int, seconds: float = SECONDS) -> bool:
        """Whether a change that this hub makes now is acknowledged in that time."""
        accounts, part = self.accounts[f"hub{number}"], self.parts[number][0]
        change = accounts.change()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if part.acknowledged == change:
                return True
            await asyncio.sleep(0.02)
        return False


@asynccontextmanager
async def connected(hubs: ThreeHubs) -> AsyncIterator[list[NatsLink]]:
    links = [hubs.link(number) for number in HUBS]
    try:
        for link in links:
            await link.wait_connected(SECONDS)
        yield links
    finally:
        for link in links:
            await link.close()


@pytest.mark.long
def test_three_hubs_keep_what_one_keeps(tmp_path: Path, show: Callable[[str], None]) -> None:
    """Claims from each of them keep the contract, races have one winner; an exit at one hub reports to a stream and
    asks a ledger that are at others; with one hub lost all of it goes on, its disk empty or not; with two lost nothing
    hangs, and asking goes on."""

    async def story(hubs: ThreeHubs) -> None:
        async with connected(hubs) as links:
            records = [KvRecords(link.jetstream, "keys", copies=COPIES) for link in links]
            names = KvRecords(links[1].jetstream, "dev", copies=COPIES)
            show(f"the first bucket is there after {await until(records[0].name, 'a bucket'):.1f} s")
            await keeps_the_contract(records[1])
            spokes = {AMS: hubs.member(AMS, 0, 1), FRA: hubs.member(FRA, 1, 2)}
            for spoke in spokes.values():
                await spoke.wait_connected(SECONDS)
            await asyncio.gather(*(add(each, 10) for each in records))
            assert (await records[0].get("sum")).value == b"30"
            ledger = ClaimLedger(records[2], names, HostClock(), nowhere)
            show(f"requests served for 25 races of two: {await races(ledger, links[2], dict(spokes), 25)}")
            streams = [NatsStreams(link.jetstream, COPIES) for link in links]
            await streams[1].make(AMS)
            await spokes[AMS].keep(STATE, b"1", 5)
            assert [m.data for m in await streams[2].read(AMS, 0, 5)] == [b"1"]
            await loses(hubs, links, records, streams, spokes[AMS])

    async def loses(
        hubs: ThreeHubs,
        links: list[NatsLink],
        records: list[KvRecords],
        streams: list[NatsStreams],
        spoke: NatsLink,
    ) -> None:
        await links[1].subscribe("wga.led.*.echo", echo)
        hubs.kill(0)
        took = await until(lambda: kept(spoke, b"2"), "a report")
        show(f"one of three killed: the next report is kept after {took:.1f} s")
        await until(lambda: changed(records[1], b"2"), "a claim")
        hubs.wipe(0)
        hubs.start(0)
        await links[0].wait_connected(SECONDS)
        await until(lambda: has(records[0], b"2"), "the record at a hub whose disk was emptied")
        hubs.kill(0)
        hubs.kill(2)
        for ask in (lambda: records[1].change("y", b"3", 0), lambda: streams[1].make(FRA)):
            began = time.monotonic()
            with pytest.raises((NotAnswered, NoResponder)):
                await ask()
            show(f"two of three lost: refused after {time.monotonic() - began:.1f} s")
        await until(lambda: spoke.request(f"wga.led.{AMS}.echo", b"", 1), "an answer with two of three lost")
        hubs.start(2)
        show(f"one is back: the next report is kept after {await until(lambda: kept(spoke, b'3'), 'a report'):.1f} s")
        await until(lambda: has(records[1], b"2"), "the record")
        await spoke.close()

    with ThreeHubs(tmp_path, AMS, FRA) as hubs:
        asyncio.run(story(hubs))


@pytest.mark.long
def test_three_servers_are_started_anew_one_at_a_time(tmp_path: Path, show: Callable[[str], None]) -> None:
    """As where nats-server is another version: claims go on meanwhile, and all that were acknowledged are there."""

    async def story(hubs: ThreeHubs) -> None:
        async with connected(hubs) as links:
            records = [KvRecords(link.jetstream, "keys", copies=COPIES) for link in links]
            await until(records[0].name, "a bucket")
            longest, keys = 0.0, [f"k{number}" for number in HUBS]
            for number, key in enumerate(keys):
                hubs.end(number)
                without, own = records[number - 1], records[number]
                longest = max(longest, await until(partial(claimed, without, key), "a claim"))
                hubs.start(number)
                await links[number].wait_connected(SECONDS)
                await until(partial(claimed, own, key), "the claim at this one")
            show(f"longest without a claim: {longest:.2f} s")
            for each in records:
                assert [(await each.get(key)).value for key in keys] == [b"1"] * len(keys)

    with ThreeHubs(tmp_path) as hubs:
        asyncio.run(story(hubs))


async def nowhere(_id: str) -> None:
    return None


async def echo(message: Message) -> None:
    await message.answer(b"here")


async def add(records: KvRecords, times: int) -> None:
    for _ in range(times):
        while True:
            found = await records.get("sum")
            if await records.put("sum", b"%d" % (int(found.value or b"0") + 1), found.revision):
                break


async def kept(link: NatsLink, data: bytes) -> bool:
    await link.keep(STATE, data, 1)
    return True


async def changed(records: KvRecords, value: bytes) -> bool:
    return await records.put("x", value, (await records.get("x")).revision)


async def claimed(records: KvRecords, key: str) -> bool:
    """Whether it is, by this call or one before whose answer was lost."""
    found = await records.get(key)
    return found.value == b"1" or await records.put(key, b"1", found.revision)


async def has(records: KvRecords, value: bytes) -> bool:
    return (await records.get("x")).value == value


@pytest.mark.long
def test_another_hub_leads_when_the_first_is_lost(tmp_path: Path, show: Callable[[str], None]) -> None:
    """By itself, in the next generation, with all that was acknowledged; without a majority nobody leads for long, and
    nothing is acknowledged; the one that comes back follows."""

    async def story(hubs: ThreeHubs) -> None:
        async with connected(hubs) as links:
            leaders = ThreeParts(links)
            records = KvRecords(links[0].jetstream, BUCKET, None, COPIES, LEAD_MB * 2**20)
            first = LeadRecord("hub0", 1, Change(1, 1, "m1"))
            await until(lambda: appoint(records, first), "a first leader")
            assert not await appoint(records, first)
            await until(lambda: one_of(leaders, 0), "the first leader")
            assert await leaders.acknowledges(0)
            acknowledged = leaders.accounts["hub0"].at
            hubs.kill(0)
            await leaders.stop(0)
            began = time.monotonic()
            await until(lambda: one_of(leaders, 1, 2), "another leader")
            show(f"the hub that leads is killed: another leads after {time.monotonic() - began:.1f} s")
            (number,) = leaders.leading()
            assert leaders.accounts[f"hub{number}"].at.rev >= acknowledged.rev
            assert await leaders.acknowledges(number)
            show(f"and a change is acknowledged after {time.monotonic() - began:.1f} s")
            other = 3 - number
            hubs.kill(other)
            await until(lambda: one_of(leaders), "no leader")
            assert not await leaders.acknowledges(number, 3)
            began = time.monotonic()
            hubs.start(other)
            await until(lambda: one_of(leaders, 1, 2), "a leader again")
            show(f"one of two lost is back: a hub leads after {time.monotonic() - began:.1f} s")
            for each in (1, 2):
                await leaders.stop(each)

    async def one_of(leaders: ThreeParts, *numbers: int) -> bool:
        leading = leaders.leading()
        return len(leading) == 1 and leading[0] in numbers if numbers else not leading

    with ThreeHubs(tmp_path, AMS) as hubs:
        asyncio.run(story(hubs))
