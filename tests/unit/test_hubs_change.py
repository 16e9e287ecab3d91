"""Other hosts become the hubs: all know it by the members, and each is what its own row says."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from appliance.cli import fleet_hubs
from appliance.domain.errors import Conflict, FleetError
from appliance.domain.fleet_member import FleetMember
from appliance.fleet.accounts import generations
from appliance.fleet.accounts.generations import Generation
from appliance.fleet.membership.hub_set import HubSet
from appliance.fleet.membership.identity import FleetFolder, HubSecrets
from appliance.store.database import Store
from appliance.store.queries import fleet_changes, fleet_members, fleet_state
from tests.support.fleet.followers import AMS, FRA, LIS, followed, turn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import aiosqlite

    from appliance.fleet.membership.members import Role

WAW = f"nod_{'4' * 24}"
NOW = 1_790_000_000_000


def member(node_id: str, role: Role = "spoke") -> FleetMember:
    name, dialled = f"n{node_id[4]}", "" if role == "spoke" else f"{node_id[4]}.example.net:7422"
    return FleetMember(node_id, name, name, role, f"U{name}", node_id[4:36].encode() + bytes(8), 1, None, dialled)


def on_a_store(path: Path, body: Callable[[aiosqlite.Connection], Awaitable[None]]) -> None:
    async def story() -> None:
        store = await Store.open(path / "store.sqlite")
        try:
            async with store.write() as db:
                await fleet_state.enter(db, "hub", FRA, 1)
                await fleet_members.put(db, member(FRA, "hub"))
                for node in (AMS, LIS, WAW):
                    await fleet_members.put(db, member(node))
                await body(db)
        finally:
            await store.close()

    asyncio.run(story())


async def hubs(db: aiosqlite.Connection) -> HubSet:
    return HubSet.of(await fleet_members.present(db))


async def become_hubs(db: aiosqlite.Connection, *nodes: str, now: int = NOW) -> None:
    await fleet_members.set_hubs(db, FRA, nodes, now)
    for node in nodes:
        await fleet_members.put_dialled(db, node, f"{node[4]}.example.net:7422")


def test_a_set_of_hubs_replaces_the_one_before(tmp_path: Path) -> None:
    """It is another one each time, by its moment, also where the clock went back; who is left out is a spoke."""

    async def body(db: aiosqlite.Connection) -> None:
        await become_hubs(db, AMS, LIS)
        first = await hubs(db)
        assert ([each.id for each in first.hubs], first.since, first.is_cluster) == ([FRA, AMS, LIS], NOW, True)
        await become_hubs(db, AMS, WAW, now=NOW - 5)
        second = await hubs(db)
        assert ([each.id for each in second.hubs], second.since) == ([FRA, AMS, WAW], NOW + 1)
        left_out = await fleet_members.by_id(db, LIS)
        assert left_out is not None
        assert (left_out.role, left_out.dialled) == ("spoke", "")
        await become_hubs(db, now=NOW + 9)
        assert [each.id for each in (await hubs(db)).hubs] == [FRA]
        assert (await hubs(db)).since == NOW + 9

    on_a_store(tmp_path, body)


@pytest.mark.parametrize(("leaves", "since", "left"), [(LIS, NOW + 5, [FRA, AMS]), (WAW, NOW, [FRA, AMS, LIS])])
def test_where_one_of_three_hubs_leaves_the_others_are_other_hubs(
    tmp_path: Path, leaves: str, since: int, left: list[str]
) -> None:
    """Two are no cluster; a spoke that leaves changes nothing."""

    async def body(db: aiosqlite.Connection) -> None:
        await become_hubs(db, AMS, LIS)
        await fleet_members.mark_left(db, leaves, NOW + 5)
        await fleet_members.mark_left(db, leaves, NOW + 6)
        found = await hubs(db)
        assert ([each.id for each in found.hubs], found.since, found.is_cluster) == (left, since, len(left) == 3)

    on_a_store(tmp_path, body)


def test_of_several_standbys_none_is_taken_for_the_new_hub(tmp_path: Path) -> None:
    """A hub that yields does not know which one leads; of a single standby it does."""

    async def body(db: aiosqlite.Connection) -> None:
        await become_hubs(db, AMS, LIS)
        await fleet_members.follow(db, FRA)
        assert {each.role for each in (await hubs(db)).hubs} == {"standby"}
        await fleet_members.lead(db, FRA)
        await fleet_members.set_hubs(db, FRA, [AMS], NOW)
        await fleet_members.follow(db, FRA)
        assert [(each.id, each.role) for each in (await hubs(db)).hubs] == [(AMS, "hub"), (FRA, "standby")]

    on_a_store(tmp_path, body)


def test_a_spoke_becomes_a_standby_by_what_it_is_told_and_a_standby_a_spoke(tmp_path: Path) -> None:
    """A host that is the hub is not made anything by what it is told, nor one made the hub."""

    async def story() -> None:
        async with followed(tmp_path, AMS, LIS) as (one, followers):
            async with one.store.write() as db:
                for each in (member(FRA, "hub"), member(AMS), member(LIS)):
                    await fleet_members.put(db, each)
                await become_hubs(db, AMS)

            async def roles() -> list[str]:
                found = []
                for each in followers:
                    async with each.store.read() as db:
                        row = await fleet_state.read(db)
                    assert row is not None
                    found.append(row.role)
                return found

            await turn(one, followers)
            assert await roles() == ["standby", "spoke"]
            async with one.store.write() as db:
                await become_hubs(db, LIS)
            await turn(one, followers)
            assert await roles() == ["spoke", "standby"]
            await one.change("UPDATE fleet_members SET role = 'hub' WHERE id = ?", LIS)
            await turn(one, followers)
            assert await roles() == ["spoke", "standby"]
            async with one.store.write() as db:
                await db.execute("UPDATE fleet_members SET role = 'spoke' WHERE id = ?", (FRA,))
                await fleet_state.follow_role(db)
                row = await fleet_state.read(db)
            assert row is not None
            assert row.role == "hub"

    asyncio.run(story())


def test_another_hub_is_dialled_where_none_answers(tmp_path: Path) -> None:
    """One that is of no cluster any more is not asked by way of the others' servers. Not at the first time: a hub that
    is started again is back in a moment."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (spoke,)):
            assert await spoke.replica.follow()
            one.bus.subscriptions.clear()
            assert not await spoke.replica.follow()
            assert spoke.older == 0
            assert not await spoke.replica.follow()
            assert spoke.older == 1
            await one.ledger.listen(one.bus.hub())
            assert await spoke.replica.follow()
            one.bus.subscriptions.clear()
            assert not await spoke.replica.follow()
            assert spoke.older == 1

    asyncio.run(story())


def test_what_a_hub_has_changed_of_the_hubs_is_told(tmp_path: Path) -> None:
    async def body(db: aiosqlite.Connection) -> None:
        await fleet_changes.record(db)
        before = await fleet_changes.head(db)
        await become_hubs(db, AMS, LIS)
        told = {each.id: each.row or "" for each in await fleet_changes.after(db, before.rev, 9)}
        assert set(told) == {FRA, AMS, LIS}
        assert all(f'"hub_since":{NOW}' in row for row in told.values())

    on_a_store(tmp_path, body)


def test_a_hubs_secrets_are_forgotten(tmp_path: Path) -> None:
    """By a host that is no hub any more; also where there are none."""
    folder = FleetFolder(tmp_path)
    folder.forget_hub_secrets()
    folder.save_hub_secrets(HubSecrets("a", "b", "c"))
    assert folder.has_hub_secrets
    folder.forget_hub_secrets()
    assert not folder.has_hub_secrets
    assert folder.hub_secrets() is None


def test_a_hub_that_is_promoted_without_the_others_goes_on_alone(tmp_path: Path) -> None:
    """They are spokes when they are back; the one that led, too. A single hub that is replaced becomes the standby."""

    async def body(db: aiosqlite.Connection) -> None:
        await become_hubs(db, AMS, LIS)
        await db.execute("UPDATE fleet SET role = 'standby', node_id = ?, gen = 4", (AMS,))
        assert await generations.begin(db, "ams.example.net:7422", NOW + 9) == 4 + generations.BY_HAND
        found = await hubs(db)
        assert [(each.id, each.role, each.dialled) for each in found.hubs] == [(AMS, "hub", "ams.example.net:7422")]
        assert found.since == NOW + 9
        await fleet_members.set_hubs(db, AMS, [LIS], NOW + 10)
        await db.execute("UPDATE fleet SET role = 'standby', node_id = ?", (LIS,))
        assert await generations.begin(db, "lis.example.net:7422", NOW + 11) == 5 + generations.BY_HAND
        assert [(each.id, each.role) for each in (await hubs(db)).hubs] == [(LIS, "hub"), (AMS, "standby")]

    on_a_store(tmp_path, body)


@pytest.mark.parametrize(("told", "role"), [((FRA, AMS, LIS), "standby"), ((), "standby"), ((AMS, LIS), "spoke")])
def test_a_hub_that_was_taken_for_lost_with_another_is_a_spoke_when_it_yields(
    tmp_path: Path, told: tuple[str, ...], role: Role
) -> None:
    """As it is not among the new hub's; one that is, or is told by an older version which are, stands by."""

    async def body(db: aiosqlite.Connection) -> None:
        await become_hubs(db, AMS, LIS)
        await db.execute("UPDATE fleet SET gen = 4")
        await generations.yield_to(db, Generation(5, fleet_changes.Head(0, ""), told), NOW)
        row = await fleet_state.read(db)
        assert row is not None
        assert row.role == role
        own = await fleet_members.by_id(db, FRA)
        assert own is not None
        assert own.role == role

    on_a_store(tmp_path, body)


def test_a_hub_begins_no_generation_that_is_not_newer_than_its_own(tmp_path: Path) -> None:
    """It may have followed another one since it asked to lead; it is what it was."""

    async def body(db: aiosqlite.Connection) -> None:
        await become_hubs(db, AMS, LIS)
        await generations.take_lead(db, 5)
        for gen in (5, 4):
            with pytest.raises(FleetError, match=f"is of generation 5 meanwhile, and does not begin {gen}"):
                await generations.take_lead(db, gen)
        row = await fleet_state.read(db)
        assert row is not None
        assert (row.role, row.gen) == ("hub", 5)

    on_a_store(tmp_path, body)


def test_another_hub_that_leads_by_now_keeps_the_hubs_as_they_are(tmp_path: Path) -> None:
    """Of a host that has yielded while `fleet hubs` waited for others, nobody follows what it would store."""

    async def story() -> None:
        store = await Store.open(tmp_path / "store.sqlite")
        try:
            async with store.write() as db:
                await fleet_state.enter(db, "hub", FRA, 1)
                for node, role in ((FRA, "hub"), (AMS, "standby"), (LIS, "spoke")):
                    await fleet_members.put(db, member(node, role))  # type: ignore[arg-type]
                await fleet_state.stand_by(db, 2)
            command = SimpleNamespace(store=store, now=NOW)
            with pytest.raises(Conflict, match="another hub leads by now: run this command there"):
                await fleet_hubs._store(command, FRA, {FRA: "a:1", AMS: "b:1", LIS: "c:1"})  # type: ignore[arg-type]
            async with store.read() as db:
                assert [each.role for each in await fleet_members.present(db)] == ["hub", "standby", "spoke"]
        finally:
            await store.close()

    asyncio.run(story())
