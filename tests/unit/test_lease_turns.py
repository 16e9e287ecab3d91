"""Openings do not wait for what an exit asks of the ledger in the background."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from appliance.config.load import parse_settings
from appliance.domain.clock import HostClock
from appliance.domain.entities import Account
from appliance.domain.tiers import Tier
from appliance.fleet.accounts.ledger import OF_ONE_AT_WORK
from appliance.fleet.quota.lease_ledger import LeaseLedger
from appliance.fleet.quota.messages import LeaseAsk, LeaseTold, WindowAsk
from appliance.store.database import Store
from appliance.store.queries import accounts as account_rows
from tests.support.api.exit_under_test import until
from tests.support.fleet.bus import Bus
from tests.support.fleet.claims_kept import RecordsInMemory
from tests.support.fleet.link_contract import AMS, FRA
from tests.support.new_store import put_new_store

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.fleet.claims.records import Versioned
    from tests.support.fleet.bus import BusLink

SECONDS = 60


class SlowRecords(RecordsInMemory):
    """Those of hubs far from each other: accounts' records come once `come` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.come = asyncio.Event()
        self.awaited: list[str] = []

    async def get(self, key: str) -> Versioned:
        if key.startswith("acc_"):
            self.awaited.append(key)
            await self.come.wait()
        return await super().get(key)


async def ask(link: BusLink, account_id: str, live_wanted: int) -> LeaseTold:
    asked = LeaseAsk(account_id, 0, 1, WindowAsk(), WindowAsk(), 0, live_wanted)
    answer = await link.request(f"wga.led.{AMS}.lease", msgspec.json.encode(asked), SECONDS)
    return msgspec.json.decode(answer, type=LeaseTold)


def test_what_no_client_waits_for_takes_half_of_an_exits_turns(tmp_path: Path) -> None:
    """Refreshing and giving back; an opening begins at once, and all are answered in the end."""

    async def story(store: Store) -> None:
        names = [f"acc_{number}" for number in range(OF_ONE_AT_WORK)]
        async with store.write() as db:
            for each in [*names, "acc_opening"]:
                await account_rows.insert(db, Account(each, each, Tier.FREE, disabled=False, created_at=1))
        bus, records = Bus(), SlowRecords()
        ledger = LeaseLedger(records, store, HostClock(), lambda: (AMS, FRA), records.name)
        ledger.take_over(parse_settings("[tiers.free]\nmax_live_sessions = 3\n", {}, "host"))
        await ledger.listen(bus.hub())
        ams = bus.node(AMS)
        asking = [asyncio.create_task(ask(ams, each, 0)) for each in names]
        await until(lambda: len(records.awaited) == OF_ONE_AT_WORK // 2, "half of them have their turns")
        asking.append(asyncio.create_task(ask(ams, "acc_opening", 1)))
        await until(lambda: records.awaited[-1] == "acc_opening", "the opening has its turn")
        assert len(records.awaited) == OF_ONE_AT_WORK // 2 + 1
        records.come.set()
        assert [each.live for each in await asyncio.gather(*asking)] == [0] * len(names) + [1]

    async def run() -> None:
        await put_new_store(tmp_path / "store.sqlite")
        store = await Store.open(tmp_path / "store.sqlite")
        try:
            await story(store)
        finally:
            await store.close()

    asyncio.run(run())
