"""Generations of a fleet: one begins with the standby's store and is followed, and an older hub yields to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from appliance.domain.entities import Account
from appliance.domain.errors import Conflict
from appliance.domain.fleet_member import FleetMember
from appliance.domain.tiers import Tier
from appliance.fleet.accounts import generations
from appliance.fleet.accounts.generations import Generation
from appliance.fleet.accounts.ledger import SyncLedger
from appliance.fleet.hub.lead import Change
from appliance.fleet.hub.progress import StoreProgress
from appliance.fleet.membership.hub_addresses import address_of, brought_up_to_date, hubs_of
from appliance.fleet.membership.identity import HubAddress, Membership
from appliance.store.queries import accounts, fleet_changes, fleet_conflicts, fleet_members, fleet_state
from appliance.store.queries.fleet_changes import Head
from tests.support.fleet.followers import AMS, FRA, LIS, followed, following, replicated, turn

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.fleet.membership.members import Role
    from tests.support.fleet.followers import Followed, Follower

OLD = Membership("flt_1", "ams1", "spoke", (HubAddress("192.0.2.9:7422", "old.hub.internal"),), "PEM", b"k" * 32)


def member(node_id: str, role: Role, dialled: str = "", left_at: int | None = None) -> FleetMember:
    name = f"n{node_id[4]}"
    return FleetMember(node_id, name, name, role, f"U{name}", node_id[4:36].encode() + bytes(8), 1, left_at, dialled)


HUB, STANDBY, SPOKE = member(FRA, "hub", "a:1"), member(AMS, "standby", "b:1"), member(LIS, "spoke")


def test_members_dial_the_hub_and_then_the_standby() -> None:
    """A hub has its own address first, a standby not its own; what is not told changes nothing that is known."""
    at_fra, at_ams = address_of(FRA, "a:1"), address_of(AMS, "b:1")
    everyone = [SPOKE, STANDBY, HUB]
    assert brought_up_to_date(OLD, LIS, "spoke", everyone).hubs == (at_fra, at_ams)
    assert brought_up_to_date(OLD, FRA, "hub", everyone).hubs == (at_fra, at_ams)
    assert brought_up_to_date(OLD, AMS, "standby", everyone).hubs == (at_fra,)
    promoted = [member(FRA, "standby", "a:1"), member(AMS, "hub", "b:1"), SPOKE]
    assert hubs_of(promoted) == (at_ams, at_fra)
    assert brought_up_to_date(OLD, AMS, "hub", promoted).role == "hub"
    assert brought_up_to_date(OLD, LIS, "spoke", [member(FRA, "hub"), STANDBY]) == OLD
    assert hubs_of([HUB, member(AMS, "standby", "b:1", left_at=2)]) == (at_fra,)


async def members(one: Followed) -> None:
    async with one.store.write() as db:
        for each in (HUB, STANDBY, SPOKE):
            await fleet_members.put(db, each)
    await one.ledger.look()


async def promoted(one: Followed, standby: Follower) -> Generation:
    """Its store answers in place of the hub's from now on."""
    async with standby.store.write() as db:
        await db.execute("UPDATE fleet SET role = 'standby'")
        assert await generations.begin(db, "b:1", 9) == 2
        row = await fleet_state.read(db)
    assert row is not None
    one.bus.subscriptions.clear()
    ledger = SyncLedger(standby.store, row.gen, one.named, row.base)
    await ledger.listen(one.bus.hub())
    await ledger.look()
    one.ledger = ledger
    return Generation(row.gen, row.base)


def test_a_promoted_store_is_followed_and_the_old_hub_yields(tmp_path: Path) -> None:
    """What the old hub had changed alone is kept as conflicts, and is not in its own accounts any more."""

    async def story() -> None:
        async with followed(tmp_path, AMS, LIS) as (one, (standby, spoke)):
            await one.account("ada")
            await members(one)
            await turn(one, [standby, spoke])
            await one.account("unseen")
            old = one.store
            newer = await promoted(one, standby)
            assert newer.base.rev > 0
            assert await spoke.replica.follow()
            assert spoke.replica.position[0] == 2
            assert replicated(spoke.path) == replicated(standby.path)
            async with old.write() as db:
                assert await generations.yield_to(db, newer, 9) == 2  # the account and its token
                kept = await fleet_conflicts.everything(db)
                row = await fleet_state.read(db)
            assert [(each.kind, '"unseen"' in (each.row or "")) for each in kept] == [
                ("account", True),
                ("token", False),
            ]
            assert row is not None
            assert (row.role, row.acc_rev) == ("standby", 0)
            back = await following(type(spoke)(one.path, old, None, spoke.clock), one.bus, FRA)  # type: ignore[arg-type]
            assert await back.replica.follow()
            assert back.replica.position[0] == 2
            async with old.read() as db:
                rows = await db.execute_fetchall("SELECT name FROM accounts WHERE deleted_at IS NULL")
                assert [each["name"] for each in rows] == ["ada"]
                roles = {each.id: each.role for each in await fleet_members.present(db)}
            assert roles == {FRA: "standby", AMS: "hub", LIS: "spoke"}

    asyncio.run(story())


def test_a_hub_that_has_just_yielded_begins_the_generation_after_that_one(tmp_path: Path) -> None:
    """It has followed nothing of the newer hub's by then, and no two generations have one number."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (standby,)):
            await members(one)
            await turn(one, [standby])
            newer = await promoted(one, standby)
            async with one.store.write() as db:
                await generations.yield_to(db, newer, 9)
                assert await generations.begin(db, "a:1", 9) == newer.number + 1

    asyncio.run(story())


def test_a_generation_that_began_with_nothing_of_the_one_before_has_all_of_that_listed(tmp_path: Path) -> None:
    """What both have is in no list, once the hub that was replaced follows; nor what a new hub has itself."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (standby,)):
            await one.account("ada")
            await members(one)
            await turn(one, [standby])
            await one.account("unseen")
            newer = await promoted(one, standby)
            old = one.store
            async with old.write() as db:
                await generations.yield_to(db, newer, 9)
                assert await generations.begin(db, "a:1", 9) == 3
                assert await fleet_conflicts.everything(db) == []  # "unseen" is here still, and the fleet's again
            async with standby.store.write() as db:
                await accounts.insert(db, Account("acc_late", "late", Tier.FREE, disabled=False, created_at=1))
                assert await generations.yield_to(db, Generation(3, Head(0, "")), 9) > 0
            one.bus.subscriptions.clear()
            await SyncLedger(old, 3, one.named).listen(one.bus.hub())
            back = await following(standby, one.bus, AMS)
            assert await back.replica.follow()
            async with standby.store.read() as db:
                kept = await fleet_conflicts.everything(db)
            assert [each.id for each in kept] == ["acc_late"]

    asyncio.run(story())


def test_what_no_log_tells_of_is_listed_too_by_a_hub_whose_successor_had_followed_nothing(tmp_path: Path) -> None:
    """An account of a generation before: the hub had it, as it led on with the store of then."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (standby,)):
            await members(one)
            await turn(one, [standby])
            await one.account("ada")
            async with one.store.write() as db:
                await fleet_changes.forget(db)
                await fleet_changes.record(db)
                assert await generations.yield_to(db, Generation(2, Head(0, "")), 9) == 0
            one.bus.subscriptions.clear()
            await SyncLedger(standby.store, 2, one.named).listen(one.bus.hub())
            async with standby.store.write() as db:
                await db.execute("UPDATE fleet SET role = 'standby'")
                await generations.begin(db, "b:1", 9)
            back = await following(type(standby)(one.path, one.store, None, standby.clock), one.bus, FRA)  # type: ignore[arg-type]
            assert await back.replica.follow()
            async with one.store.read() as db:
                kept = await fleet_conflicts.everything(db)
            assert [each.kind for each in kept] == ["account", "token"]

    asyncio.run(story())


def test_who_has_seen_a_newer_generation_does_not_go_back(tmp_path: Path) -> None:
    """It looks for another hub, and keeps what it has."""

    async def story() -> None:
        async with followed(tmp_path, AMS, LIS) as (one, (standby, spoke)):
            await members(one)
            await turn(one, [standby, spoke])
            older = one.store
            await promoted(one, standby)
            assert await spoke.replica.follow()
            had = replicated(spoke.path)
            one.bus.subscriptions.clear()
            await SyncLedger(older, 1, one.named).listen(one.bus.hub())
            assert not await spoke.replica.follow()
            assert (spoke.replica.position[0], replicated(spoke.path)) == (2, had)
            assert spoke.older == 1

    asyncio.run(story())


def test_a_replica_does_not_write_into_a_store_that_leads(tmp_path: Path) -> None:
    """The server follows still while the command has just begun the generation."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (standby,)):
            await members(one)
            await turn(one, [standby])
            async with standby.store.write() as db:
                await db.execute("UPDATE fleet SET role = 'standby'")
                await generations.begin(db, "b:1", 9)
            await one.account("later")
            assert not await standby.replica.follow()
            async with standby.store.read() as db:
                row = await fleet_state.read(db)
                assert not list(await db.execute_fetchall("SELECT 1 FROM accounts"))
            assert row is not None
            assert (row.role, row.gen) == ("hub", 2)

    asyncio.run(story())


def test_a_host_that_is_no_standby_is_not_promoted(tmp_path: Path) -> None:
    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (spoke,)):
            for store in (one.store, spoke.store):
                with pytest.raises(Conflict, match="not the standby"):
                    async with store.write() as db:
                        await generations.begin(db, "b:1", 9)

    asyncio.run(story())


def test_a_hub_that_was_rolled_back_offers_nothing(tmp_path: Path) -> None:
    """Which of its changes the newer generation lacks is not known."""

    async def story() -> None:
        async with followed(tmp_path) as (one, _):
            await one.account("ada")
            async with one.store.write() as db:
                assert await generations.yield_to(db, Generation(2, Head(99, "unknown")), 9) == 0
                assert await fleet_changes.head(db) == Head(0, "")
                assert not await fleet_changes.is_recorded(db)

    asyncio.run(story())


def test_of_several_hubs_one_that_was_replaced_twice_lists_what_was_not_acknowledged(tmp_path: Path) -> None:
    """Another hub has led between it and the one that it follows, so that it does not know what that one began with."""

    async def story() -> None:
        async with followed(tmp_path) as (one, _):
            async with one.store.write() as db:
                for each in (HUB, STANDBY, member(LIS, "standby", "c:1")):
                    await fleet_members.put(db, each)
            await one.account("ada")
            async with one.store.write() as db:
                head = await fleet_changes.head(db)
                await fleet_state.put_kept(db, 1, head.rev, head.mark)
            await one.account("unseen")
            async with one.store.write() as db:
                assert await generations.yield_to(db, Generation(3, Head(99, "of the second")), 9) == 2
                kept = await fleet_conflicts.everything(db)
            assert [each.kind for each in kept] == ["account", "token"]
            assert '"unseen"' in (kept[0].row or "")

    asyncio.run(story())


@pytest.mark.parametrize("case", ["acknowledged", "with its successor", "of a generation before", "neither"])
def test_a_hub_that_yields_holds_what_was_acknowledged(tmp_path: Path, case: str) -> None:
    """Of its own changes what it knows to be, or what its successor began with; all that came before it led."""

    async def story() -> None:
        async with followed(tmp_path) as (one, _):
            await one.account("ada")
            async with one.store.write() as db:
                await db.execute("UPDATE fleet SET gen = 3")
                head = await fleet_changes.head(db)
                if case in ("acknowledged", "of a generation before"):
                    await fleet_state.put_kept(db, 3 if case == "acknowledged" else 2, head.rev, head.mark)
            await one.account("unseen")
            base = head if case == "with its successor" else Head(99, "of another")
            async with one.store.write() as db:
                assert await generations.yield_to(db, Generation(5, base), 9) is not None
            found = await StoreProgress(one.store, lambda: None).followed(None)
            known = case in ("acknowledged", "with its successor")
            assert found.at == (Change(3, head.rev, head.mark) if known else Change(3, 0, ""))
            assert found.seen == 5
            assert found.holds(Change(2, 10**6, "of the one before"))
            assert found.holds(Change(3, head.rev, head.mark)) is known
            assert not found.holds(Change(3, head.rev + 1, "later"))
            assert not found.holds(Change(4, 1, "of the successor"))

    asyncio.run(story())


def test_a_host_that_has_followed_nothing_and_never_led_holds_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with followed(tmp_path, AMS) as (_, (standby,)):
            async with standby.store.write() as db:
                await fleet_state.stand_by(db, 7)
            assert not (await StoreProgress(standby.store, lambda: None).followed(None)).holds(Change(1, 1, "first"))

    asyncio.run(story())


def test_what_is_no_hub_any_more_or_leads_as_new_a_generation_yields_to_none(tmp_path: Path) -> None:
    """It may have become so while it asked."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (spoke,)):
            for store in (one.store, spoke.store):
                async with store.write() as db:
                    before = await fleet_state.read(db)
                    assert await generations.yield_to(db, Generation(1, Head(0, "")), 9) is None
                    assert await fleet_state.read(db) == before
            async with spoke.store.write() as db:
                assert await generations.yield_to(db, Generation(9, Head(0, "")), 9) is None

    asyncio.run(story())


def test_one_of_several_hubs_follows_none_that_was_rolled_back(tmp_path: Path) -> None:
    """What that one lacks was acknowledged, and this one is to lead. A hub and its standby have no other choice."""

    async def story() -> None:
        async with followed(tmp_path, AMS, LIS) as (one, spokes):
            async with one.store.write() as db:
                for each in (HUB, STANDBY, member(LIS, "standby", "c:1")):
                    await fleet_members.put(db, each)
            await one.account("ada")
            await turn(one, spokes)
            old = await one.copied("old.sqlite")
            await one.account("bob")
            await turn(one, spokes)
            of_three, of_two = spokes
            for each in spokes:
                async with each.store.write() as db:
                    await db.execute("UPDATE fleet SET role = 'standby'")
            async with of_two.store.write() as db:
                await db.execute("UPDATE fleet_members SET left_at = 1 WHERE id = ?", (AMS,))
            await one.answer_from(old)
            position = of_three.replica.position
            for _ in range(2):
                assert not await of_three.replica.follow()
            assert of_three.replica.position == position
            assert await of_two.replica.follow()
            assert of_two.replica.position < position
            async with of_three.store.read() as db:
                assert {each.name for each in await accounts.everyone(db)} >= {"ada", "bob"}

    asyncio.run(story())
