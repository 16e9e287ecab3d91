"""What is lent of an account's limits, on a real hub: never more than there is, whoever asks at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from appliance.config.load import parse_settings
from appliance.domain.clock import HostClock
from appliance.domain.entities import Account
from appliance.domain.tiers import Tier
from appliance.fleet.accounts.sync_messages import LedgerRefusal
from appliance.fleet.claims.kv import KvRecords
from appliance.fleet.hub_part import LEASES
from appliance.fleet.link.link import NatsLink
from appliance.fleet.link.wire import PREFIX
from appliance.fleet.quota.lease_ledger import LeaseLedger
from appliance.fleet.quota.messages import AllNoted, LeaseAsk, LeaseTold, ToldAll, WindowAsk
from appliance.store.database import Store
from appliance.store.queries import accounts as account_rows
from tests.support.fleet.hub_process import SECONDS, HubProcess
from tests.support.fleet.link_contract import AMS, FRA
from tests.support.new_store import put_new_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from appliance.fleet.link.nats_client import LinkUser

ACCOUNT, LIMIT = Account("acc_1", "one", Tier.FREE, disabled=False, created_at=1), 50_000_000
SETTINGS = parse_settings(
    '[tiers.free]\nbytes_limit = "50 MB"\nseconds_limit = "0s"\nmax_live_sessions = 3\n', {}, "host"
)


async def dialled(hub: HubProcess, user: LinkUser) -> NatsLink:
    link = NatsLink(lambda: (hub.at(),), user, HostClock())
    link.start()
    await link.wait_connected(SECONDS)
    return link


class AskingExit:
    """Asks as an exit does that has used nothing yet."""

    def __init__(self, node: str, link: NatsLink) -> None:
        self.node = node
        self.link = link
        self.q = 0
        self.opened = 0
        self.had = 0

    async def request(self, asked: LeaseAsk | ToldAll) -> LeaseTold | AllNoted | LedgerRefusal:
        answer = await self.link.request(f"{PREFIX}.led.{self.node}.lease", msgspec.json.encode(asked), SECONDS)
        return msgspec.json.decode(answer, type=LeaseTold | AllNoted | LedgerRefusal)

    async def borrow(self, amount: int, live: int = 0) -> LeaseTold:
        self.q += 1
        traffic = WindowAsk(self.opened, 0, self.had, self.had + amount)
        told = await self.request(LeaseAsk(ACCOUNT.id, 0, self.q, traffic, WindowAsk(), 0, live))
        assert isinstance(told, LeaseTold), told
        self.opened, self.had = told.traffic.opened, max(self.had, told.traffic.granted)
        return told


async def told_to_all(ledger: Callable[[], Awaitable[str]], *exits: AskingExit) -> None:
    for each in exits:
        assert await each.request(ToldAll("another")) == AllNoted(known=False)
        assert await each.request(ToldAll(await ledger())) == AllNoted(known=True)


async def racing(exits: list[AskingExit]) -> int:
    """Has them ask for all at once until nothing is left; returns what they were lent, together."""
    free = LIMIT
    while free:
        told = await asyncio.gather(*(each.borrow(LIMIT) for each in exits))
        assert sum(each.had for each in exits) <= LIMIT
        free = min(each.traffic.free for each in told)
    return sum(each.had for each in exits)


def test_leases_on_a_real_hub(tmp_path: Path, show: Callable[[str], None]) -> None:
    """Two that race for the last bytes are lent what there is, once; after the bucket was lost, what they tell is
    theirs again, and before all have told there is a share for each; strangers and unknown accounts get nothing."""

    async def story(hub: HubProcess, store: Store) -> None:
        async with store.write() as db:
            await account_rows.insert(db, ACCOUNT)
        links = [await dialled(hub, user) for user in (hub.hub_user(), hub.user(AMS), hub.user(FRA))]
        members = [AMS, FRA]
        records = KvRecords(links[0].jetstream, LEASES, None)
        ledger = LeaseLedger(records, store, HostClock(), lambda: members, records.name)
        ledger.take_over(SETTINGS)
        await ledger.listen(links[0])
        ams, fra = exits = [AskingExit(node, link) for node, link in zip(members, links[1:], strict=True)]
        try:
            assert (await ams.borrow(LIMIT)).traffic.granted == LIMIT // 2  # its share: the other has not told anything
            assert (await ams.borrow(LIMIT)).traffic.granted == LIMIT // 2
            await told_to_all(records.name, *exits)
            assert await racing(exits) == LIMIT
            shown = [each.had for each in exits]
            live = await asyncio.gather(*(each.borrow(0, live=2) for each in exits))
            assert sorted(each.live for each in live) == [1, 2]
            await links[0].jetstream().delete_stream(f"KV_{LEASES}")
            ams.had //= 2  # it has given that back since
            assert (await ams.borrow(LIMIT)).traffic.free == 0
            assert (await fra.borrow(0)).traffic.granted == fra.had == shown[1]
            assert sum(each.had for each in exits) <= LIMIT
            members.remove(FRA)
            assert isinstance(await fra.request(ToldAll("")), LedgerRefusal)
            assert await racing([ams]) == LIMIT
            refused = await ams.request(LeaseAsk("acc_none", 0, 1, WindowAsk(), WindowAsk()))
            assert refused == LedgerRefusal("there is no account acc_none")
            show(f"lent to two that raced: {shown}")
        finally:
            for link in links:
                await link.close()

    async def run(hub: HubProcess) -> None:
        await put_new_store(tmp_path / "store.sqlite")
        store = await Store.open(tmp_path / "store.sqlite")
        try:
            await story(hub, store)
        finally:
            await store.close()

    with HubProcess(tmp_path / "hub", AMS, FRA) as hub:
        asyncio.run(run(hub))
