"""A bucket full of records of limits that are needed no more has room again for new accounts, on a real hub."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from appliance.config.load import parse_settings
from appliance.domain.clock import HostClock
from appliance.domain.entities import Account
from appliance.domain.errors import NotAnswered
from appliance.domain.tiers import Tier
from appliance.fleet.claims.kv import KvRecords
from appliance.fleet.hub_part import LEASES
from appliance.fleet.link.link import NatsLink
from appliance.fleet.quota.escrow import HeardRequest, PartOfLive, PartOfWindow, QuotaRecord, WindowRecord
from appliance.fleet.quota.lease_ledger import TOLD, LeaseLedger, ToldRecord
from appliance.fleet.quota.lease_upkeep import LeaseUpkeep
from appliance.store.database import Store
from appliance.store.queries import accounts as account_rows
from tests.support.fleet.hub_process import SECONDS, HubProcess
from tests.support.fleet.link_contract import AMS, FRA
from tests.support.new_store import put_new_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MOST_BYTES, RECORDS = 60_000, 500  # more than there is room for
LOOKS = 10
SETTINGS = parse_settings('[tiers.free]\nbytes_window = "1h"\nseconds_window = "1h"\n', {}, "host")
OVER = WindowRecord(1_700_000_000_000, {AMS: PartOfWindow(500, 500)})
OLD = QuotaRecord(OVER, OVER, {AMS: PartOfLive(0)}, {AMS: HeardRequest(0, 1, OVER.opened)})


async def fill(records: KvRecords) -> int:
    """Returns how many records there was room for."""
    record = msgspec.json.encode(OLD)
    for number in range(RECORDS):
        try:
            assert await records.put(f"acc_{number}", record, 0)
        except NotAnswered:
            return number
    raise AssertionError("the bucket is not full")


def test_a_full_bucket_is_emptied_of_old_records(tmp_path: Path, show: Callable[[str], None]) -> None:
    """Deleting needs no room, and leaves nothing; what an exit has now stays."""

    async def story(link: NatsLink, store: Store) -> None:
        records = KvRecords(link.jetstream, LEASES, None, most_bytes=MOST_BYTES)
        async with store.write() as db:
            await account_rows.insert(db, Account("acc_live", "live", Tier.FREE, disabled=False, created_at=1))
            for number in range(0, RECORDS, 2):  # the others are gone
                account = Account(f"acc_{number}", f"n{number}", Tier.FREE, disabled=False, created_at=1)
                await account_rows.insert(db, account)
        told = ToldRecord(await records.name(), [AMS, FRA])
        assert await records.put(TOLD, msgspec.json.encode(told), 0)
        lives = msgspec.json.encode(msgspec.structs.replace(OLD, live={AMS: PartOfLive(1)}))
        assert await records.put("acc_live", lives, 0)
        many = await fill(records)
        with pytest.raises(NotAnswered):
            await records.put("acc_new", lives, 0)
        ledger = LeaseLedger(records, store, HostClock(), lambda: (AMS, FRA), records.name)
        ledger.take_over(SETTINGS)
        upkeep = LeaseUpkeep(records, ledger, HostClock())
        for _ in range(LOOKS):
            await upkeep.look()
        assert [each.key for each in await records.page(0, RECORDS)] == [TOLD, "acc_live"]
        state = (await link.jetstream().stream_info(f"KV_{LEASES}")).state
        assert state.messages == 3  # and the bucket's name
        assert await records.put("acc_new", lives, 0)
        show(f"{many} old records filled the bucket; {state.bytes} bytes are left")

    async def run(hub: HubProcess) -> None:
        await put_new_store(tmp_path / "store.sqlite")
        store = await Store.open(tmp_path / "store.sqlite")
        link = NatsLink(lambda: (hub.at(),), hub.hub_user(), HostClock())
        link.start()
        try:
            await link.wait_connected(SECONDS)
            await story(link, store)
        finally:
            await link.close()
            await store.close()

    with HubProcess(tmp_path / "hub", AMS, FRA) as hub:
        asyncio.run(run(hub))
