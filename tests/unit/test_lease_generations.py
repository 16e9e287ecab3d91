"""What the ledger remembers of limits when its host is promoted a second time: nothing of its first generation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from appliance.config.load import parse_settings
from appliance.domain.clock import HostClock
from appliance.domain.entities import Account
from appliance.domain.tiers import Tier
from appliance.fleet.claims.ledger import ClaimLedger
from appliance.fleet.quota.lease_ledger import LeaseLedger
from appliance.fleet.quota.messages import LeaseAsk, LeaseTold, ToldAll, WindowAsk
from appliance.store.database import Store
from appliance.store.queries import accounts as account_rows
from tests.support.fleet.claims_kept import RecordsInMemory
from tests.support.new_store import put_new_store

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 64_000_000
SETTINGS = parse_settings('[tiers.free]\nbytes_limit = "64 MB"\nseconds_limit = "0s"\n', {}, "host")
AMS, FRA = "nod_" + "a" * 24, "nod_" + "b" * 24


class PromotedHub:
    """Is a hub of one generation, over what its JetStream has."""

    def __init__(self, buckets: list[RecordsInMemory], store: Store, gen: int) -> None:
        keys, names, leases = buckets
        self.claims = ClaimLedger(keys, names, HostClock(), _nowhere, beside=(leases,), gen=gen)
        self._leases = LeaseLedger(leases, store, HostClock(), lambda: (AMS, FRA), self.claims.name, gen)
        self._leases.take_over(SETTINGS)

    async def say_all_is_told(self) -> None:
        for node in (AMS, FRA):
            await self._leases.answer(node, msgspec.json.encode(ToldAll(await self.claims.name())))

    async def lent(self, node: str, q: int) -> int:
        """Returns what an exit is lent that has nothing and wants all."""
        asked = LeaseAsk("acc_1", 0, q, WindowAsk(0, 0, 0, LIMIT), WindowAsk())
        answer = await self._leases.answer(node, msgspec.json.encode(asked))
        told = msgspec.json.decode(answer, type=LeaseTold)
        return told.traffic.granted if (told.e, told.q) == (0, q) else 0


async def _nowhere(_id: str) -> None:
    return None


def test_hub_that_is_promoted_again_lends_a_share_alone_until_all_exits_have_told(tmp_path: Path) -> None:
    """What it remembers of its first generation says nothing of what its successor has lent."""

    async def story(store: Store) -> None:
        async with store.write() as db:
            await account_rows.insert(db, Account("acc_1", "one", Tier.FREE, disabled=False, created_at=1))
        buckets = [RecordsInMemory() for _ in range(3)]
        first = PromotedHub(buckets, store, 1)
        await first.say_all_is_told()
        assert await first.lent(AMS, 1) == LIMIT // 2
        assert await first.lent(FRA, 1) == LIMIT // 4

        again = PromotedHub(buckets, store, 3)
        assert await again.claims.name() != await first.claims.name()
        assert await again.lent(AMS, 2) == LIMIT // 2
        assert await again.lent(AMS, 3) == LIMIT // 2
        await again.say_all_is_told()
        assert await again.lent(AMS, 4) == LIMIT // 2 + LIMIT // 4

    async def run() -> None:
        await put_new_store(tmp_path / "store.sqlite")
        store = await Store.open(tmp_path / "store.sqlite")
        try:
            await story(store)
        finally:
            await store.close()

    asyncio.run(run())
