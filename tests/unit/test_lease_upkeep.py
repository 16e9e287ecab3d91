"""Which records of limits the ledger needs no more, and how it deletes them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec.structs import replace

from appliance.config.load import parse_settings
from appliance.domain.entities import Account
from appliance.domain.errors import NotAnswered
from appliance.domain.tiers import Tier
from appliance.fleet.quota.escrow import (
    HeardRequest,
    LedgerFacts,
    PartOfLive,
    PartOfWindow,
    QuotaRecord,
    WindowRecord,
)
from appliance.fleet.quota.lease_ledger import TOLD, LeaseLedger, ToldRecord
from appliance.fleet.quota.lease_upkeep import PAGE, WALK_MS, LeaseUpkeep
from appliance.fleet.quota.messages import ToldAll
from appliance.fleet.quota.outdated import QUIET_MS, is_outdated
from appliance.store.database import Store
from appliance.store.queries import accounts as account_rows
from tests.support.fleet.claims_kept import RecordsInMemory
from tests.support.fleet.escrow_model import ModelLimits
from tests.support.new_store import put_new_store
from tests.support.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

A, B, GONE = "nod_a", "nod_b", "nod_gone"
LIMITS = ModelLimits(bytes_window=1_000, seconds_window=2_000)
OPENED, OVER = 10_000_000, 10_000_000 + 2_000_000 + QUIET_MS
LENT = WindowRecord(OPENED, {A: PartOfWindow(500, 400)})
RECORD = QuotaRecord(LENT, LENT, {A: PartOfLive(0), GONE: PartOfLive(1)}, {A: HeardRequest(0, 1, OPENED)}, True)


def needless(record: QuotaRecord = RECORD, now_ms: int = OVER, told: tuple[str, ...] = (A, B)) -> bool:
    return is_outdated(record, LedgerFacts(LIMITS, (A, B), told, lends=True, now_ms=now_ms))


def test_a_record_is_needed_no_more_once_its_windows_are_over_and_nothing_lives() -> None:
    """Both windows, and with what clocks may differ by; a session of an exit that has left the fleet is none."""
    assert needless()
    assert not needless(now_ms=OVER - 1)
    assert not needless(replace(RECORD, traffic=replace(LENT, opened=OVER - 1_000_000)))


@pytest.mark.parametrize(
    "record",
    [
        replace(RECORD, live={A: PartOfLive(1)}),
        replace(RECORD, heard={**RECORD.heard, B: HeardRequest(0, 1, OVER - QUIET_MS + 1)}),
    ],
    ids=["a session may live", "a request may be under way"],
)
def test_a_record_is_kept(record: QuotaRecord) -> None:
    assert not needless(record)


def test_a_complete_record_is_kept_while_a_new_one_would_not_be() -> None:
    """Less would be lent of it until the exit that is away has told what it has."""
    assert not needless(told=(A,))
    incomplete = replace(RECORD, complete=False)
    assert needless(incomplete, told=(A,))
    assert not needless(incomplete, told=(B,))  # it has what A has told of this account


class FullRecords(RecordsInMemory):
    """Those of a bucket that takes no more."""

    full = False

    async def put(self, key: str, value: bytes, revision: int) -> bool:
        if self.full:
            raise NotAnswered("maximum bytes exceeded")
        return await super().put(key, value, revision)


class Ledger:
    """A hub's records in memory, and its accounts."""

    def __init__(self, store: Store) -> None:
        self.records = FullRecords()
        self.clock = VirtualClock(wall_ms=OVER, boot_ms=0)
        self.ledger = ledger = LeaseLedger(self.records, store, self.clock, lambda: (A, B), self.records.name, gen=2)
        ledger.take_over(parse_settings('[tiers.free]\nbytes_window = "1h"\nseconds_window = "1h"\n', {}, "host"))
        self.upkeep = LeaseUpkeep(self.records, ledger, self.clock)

    async def put(self, key: str, record: QuotaRecord | ToldRecord) -> None:
        assert await self.records.put(key, msgspec.json.encode(record), 0)

    async def walk(self) -> set[str]:
        """Looks at all records once; returns those that are left."""
        self.clock.advance(WALK_MS / 1000)
        for _ in range(len(self.records.known) // PAGE + 2):
            await self.upkeep.look()
        return set(self.records.known)


async def on_ledger(story: Callable[[Ledger], Awaitable[None]], path: Path) -> None:
    await put_new_store(path)
    store = await Store.open(path)
    try:
        async with store.write() as db:
            for id_ in ("acc_1", "acc_2", "acc_deleted"):
                await account_rows.insert(db, Account(id_, id_, Tier.FREE, disabled=False, created_at=1))
            await account_rows.delete(db, "acc_deleted", 2)
        await story(Ledger(store))
    finally:
        await store.close()


def test_records_are_deleted_that_are_needed_no_more(tmp_path: Path) -> None:
    """Of accounts that are gone, as a self-test's, at once; of an earlier generation; not who has told all."""

    async def story(ledger: Ledger) -> None:
        now = replace(RECORD, gen=2)
        lives = replace(now, live={A: PartOfLive(1)})
        await ledger.put(TOLD, ToldRecord(await ledger.records.name(), [A, B]))
        await ledger.put("acc_1", now)
        await ledger.put("acc_2", lives)
        await ledger.put("acc_deleted", lives)
        await ledger.put("acc_selftest_1", lives)
        assert await ledger.walk() == {TOLD, "acc_2"}
        found = await ledger.records.get("acc_2")
        assert await ledger.records.put("acc_2", msgspec.json.encode(replace(lives, gen=1)), found.revision)
        await ledger.put("acc_1", replace(now, gen=3))
        assert await ledger.walk() == {TOLD, "acc_1"}

    asyncio.run(on_ledger(story, tmp_path / "store.sqlite"))


def test_a_record_that_has_changed_since_it_was_read_stays(tmp_path: Path) -> None:
    """An exit has asked meanwhile."""

    async def story(ledger: Ledger) -> None:
        await ledger.put("acc_selftest_1", RECORD)
        read = ledger.records.page

        async def page(after: int, most: int) -> object:
            found = await read(after, most)
            for each in found:
                assert await ledger.records.put(each.key, each.value, each.revision)
            return found

        ledger.records.page = page  # type: ignore[method-assign, assignment]  # a request between reading and deleting
        assert await ledger.walk() == {"acc_selftest_1"}

    asyncio.run(on_ledger(story, tmp_path / "store.sqlite"))


def test_a_full_bucket_is_emptied_though_it_cannot_note_that_an_exit_has_told_all(tmp_path: Path) -> None:
    """As of one that has joined: it says so again until there is room for that."""

    async def story(ledger: Ledger) -> None:
        name = await ledger.records.name()
        await ledger.put(TOLD, ToldRecord(name, [A]))
        await ledger.put("acc_1", replace(RECORD, gen=2))
        ledger.records.full = True
        assert await ledger.walk() == {TOLD, "acc_1"}
        with pytest.raises(NotAnswered):
            await ledger.ledger.answer(B, msgspec.json.encode(ToldAll(name)))
        assert await ledger.walk() == {TOLD}

    asyncio.run(on_ledger(story, tmp_path / "store.sqlite"))


def test_many_records_are_looked_at_a_page_at_a_time(tmp_path: Path) -> None:
    """Each look reads and deletes a page at most; after the last one, nothing is read for an hour."""

    async def story(ledger: Ledger) -> None:
        for number in range(2 * PAGE + 1):
            await ledger.put(f"acc_selftest_{number}", RECORD)
        left = []
        for _ in range(4):
            await ledger.upkeep.look()
            left.append(len(ledger.records.known))
        assert left == [PAGE + 1, 1, 0, 0]
        await ledger.put("acc_selftest_later", RECORD)
        await ledger.upkeep.look()
        assert set(ledger.records.known) == {"acc_selftest_later"}
        assert await ledger.walk() == set()

    asyncio.run(on_ledger(story, tmp_path / "store.sqlite"))
