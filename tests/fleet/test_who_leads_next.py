"""Three hosts with their stores, three real nats-servers: who leads where the usual successor is lost, too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from appliance.fleet.claims.kv import KvRecords
from appliance.fleet.hub.cluster import COPIES
from appliance.fleet.hub.config import LEAD_MB
from appliance.fleet.hub.lead import LeadRecord
from appliance.fleet.hub.leading import BUCKET, appoint
from appliance.store.queries import fleet_conflicts
from tests.support.fleet.hub_parts import NODES, hub_parts, until
from tests.support.fleet.three_hubs import ThreeHubs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.fleet.hub_parts import PartOfHub

pytestmark = pytest.mark.long


def of(hubs: ThreeHubs, folder: Path, story: Callable[[ThreeHubs, list[PartOfHub]], object]) -> None:
    async def told() -> None:
        async with hub_parts(hubs, folder) as parts:
            await story(hubs, parts)  # type: ignore[misc]

    asyncio.run(told())


async def leads(part: PartOfHub) -> bool:
    return part.leading is not None and part.leading.gen is not None


async def led_by_the_first(parts: list[PartOfHub]) -> None:
    """It leads, and the two others have its first account."""
    first = parts[0]
    records = KvRecords(first.link().jetstream, BUCKET, None, COPIES, LEAD_MB * 2**20)
    head = await first.head()
    assert head is not None
    await until(lambda: appoint(records, LeadRecord(first.node, 1, head)), "a first leader")
    first.lead()
    await until(lambda: leads(first), "the first leads")
    await first.answer()
    await first.account("both")
    for each in parts[1:]:
        await each.follow()


async def acknowledged(part: PartOfHub) -> bool:
    return part.leading is not None and part.leading.acknowledged == await part.head()


def test_a_hub_that_has_yielded_leads_again_where_its_successor_is_lost(
    tmp_path: Path, show: Callable[[str], None]
) -> None:
    """It had all that was acknowledged, and has followed nothing since; the third hub lacks a change of these."""

    async def story(hubs: ThreeHubs, parts: list[PartOfHub]) -> None:
        first, second, third = parts
        await led_by_the_first(parts)
        await first.account("acknowledged")
        await second.follow()
        await until(lambda: acknowledged(first), "a second hub has it")
        await first.stop()
        second.lead()
        await until(lambda: leads(second), "another leads")
        await second.answer()
        assert await first.yields() == 0
        assert ((await first.row()).role, (await first.row()).acc_rev) == ("standby", 0)
        await second.stop()
        hubs.kill(1)
        third.lead()
        first.lead()
        show(f"it leads again after {await until(lambda: leads(first), 'the first leads again'):.1f} s")
        assert not await leads(third)
        assert await first.names() == {"both", "acknowledged"}
        assert (await first.row()).role == "hub"
        await first.answer()
        await third.follow()
        assert await third.names() == {"both", "acknowledged"}

    with ThreeHubs(tmp_path, *NODES) as hubs:
        of(hubs, tmp_path, story)


def test_the_hub_is_lost_before_it_is_appointed(tmp_path: Path, show: Callable[[str], None]) -> None:
    """Of the two that are left the one that has followed more leads; the first yields when it is back, and what nobody
    had followed is listed there."""

    async def story(hubs: ThreeHubs, parts: list[PartOfHub]) -> None:
        first, second, third = parts
        await first.answer()
        for name, followers in (("both", (second, third)), ("one", (third,)), ("none", ())):
            await first.account(name)
            for each in followers:
                await each.follow()
        await first.stop()
        hubs.kill(0)
        for each in (second, third):
            each.lead()
        show(f"another leads after {await until(lambda: leads(third), 'the third leads'):.1f} s")
        assert not await leads(second)
        assert (await third.row()).gen == 2
        await third.answer()
        await second.follow()
        assert await second.names() == {"both", "one"}
        hubs.start(0)
        assert await first.yields() == 1
        async with first.store.read() as db:
            assert [each.id for each in await fleet_conflicts.everything(db)] == ["acc_none"]
        await first.follow()
        assert await first.names() == {"both", "one"}

    with ThreeHubs(tmp_path, *NODES) as hubs:
        of(hubs, tmp_path, story)


def test_before_three_nats_servers_were_there_it_is_said_what_is_missing(tmp_path: Path) -> None:
    """There is nowhere to keep who leads; it is made as soon as they are."""
    hubs = ThreeHubs(tmp_path, *NODES)

    async def story(_hubs: ThreeHubs, parts: list[PartOfHub]) -> None:
        _, second, third = parts
        leading = second.lead()

        async def is_said() -> bool:
            return "fewer than 3 nats-servers" in leading.fault

        await until(is_said, "what is missing")
        hubs.start(0)
        third.lead()

        async def is_known() -> bool:
            return not leading.fault

        await until(is_known, "the record can be read")

    try:
        hubs.start(1)
        hubs.start(2)
        of(hubs, tmp_path, story)
    finally:
        for number in range(len(NODES)):
            hubs.kill(number)
