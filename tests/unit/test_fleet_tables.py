"""What a hub records of its accounts, tokens, members and terms, and the rows that stand for a fleet."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from appliance.domain import ids
from appliance.domain.clock import Moment
from appliance.domain.entities import Account, Token
from appliance.domain.fleet_member import FleetMember
from appliance.domain.tiers import Tier
from appliance.domain.windows import Window, Windows
from appliance.store.database import Store
from appliance.store.queries import (
    accounts,
    fleet_changes,
    fleet_invites,
    fleet_members,
    fleet_state,
    fleet_terms,
    selftest_accounts,
    tokens,
)
from appliance.store.queries.fleet_changes import Head
from appliance.store.queries.fleet_invites import Invite

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import aiosqlite

ADA = Account("acc_1", "ada", Tier.FREE, False, 1)
LAPTOP = Token("tok_1", "ada", Tier.FREE, "laptop", 2, 3, None)
FRA = FleetMember("nod_1", "fra1", "fra", "hub", "UFRA", bytes(range(32)), 1)
AMS = FleetMember("nod_2", "ams1", "ams", "spoke", "UAMS", bytes(32), 2)


def on_a_store(path: Path, body: Callable[[aiosqlite.Connection], Awaitable[None]]) -> None:
    async def story() -> None:
        store = await Store.open(path / "store.sqlite")
        try:
            async with store.write() as db:
                await body(db)
        finally:
            await store.close()

    asyncio.run(story())


async def changed(db: aiosqlite.Connection, rev: int) -> list[tuple[str, str, Any]]:
    found = await fleet_changes.after(db, rev, 100)
    return [(each.kind, each.id, None if each.row is None else json.loads(each.row)) for each in found]


def test_a_single_exit_records_nothing(tmp_path: Path) -> None:
    """No trigger and no row, and none is left of a fleet that the host has left."""

    async def body(db: aiosqlite.Connection) -> None:
        before = list(await db.execute_fetchall("SELECT name FROM sqlite_schema WHERE type = 'trigger'"))
        await accounts.insert(db, ADA)
        assert await fleet_changes.head(db) == Head(0, "")
        await fleet_state.enter(db, "hub", "nod_1", 1)
        await fleet_changes.record(db)
        await fleet_members.put(db, FRA)
        await fleet_changes.ignore(db)
        await fleet_state.leave(db)
        after = list(await db.execute_fetchall("SELECT name FROM sqlite_schema WHERE type = 'trigger'"))
        assert after == before
        assert await fleet_state.read(db) is None
        assert await fleet_members.everyone(db) == []
        assert await accounts.by_name(db, "ada") == ADA

    on_a_store(tmp_path, body)


def test_each_change_is_recorded_with_the_row_as_it_is_now(tmp_path: Path) -> None:
    """Accounts, tokens, members and terms, by whatever way they change; a row that changed twice is told once."""

    async def body(db: aiosqlite.Connection) -> None:
        await fleet_changes.record(db)
        start = (await fleet_changes.head(db)).rev
        await accounts.insert(db, ADA)
        await tokens.insert(db, ADA, LAPTOP, b"\xab" * 32)
        await fleet_members.put(db, FRA)
        assert await fleet_terms.put(db, '{"tiers":{}}')
        assert not await fleet_terms.put(db, '{"tiers":{}}')
        token = {"id": "tok_1", "account_id": "acc_1", "hash": "ab" * 32, "label": "laptop"}
        assert await changed(db, start) == [
            ("account", "acc_1", _account()),
            ("token", "tok_1", token | {"created_at": 2, "expires_at": 3, "revoked_at": None}),
            ("member", "nod_1", _member()),
            ("terms", "1", {"tiers": {}}),
        ]
        told = await fleet_changes.head(db)
        await accounts.update(db, "acc_1", tier=Tier.PAID, disabled=True)
        await accounts.update(db, "acc_1", tier=Tier.PAID, disabled=True)
        await tokens.revoke(db, "tok_1", 9)
        await accounts.delete(db, "acc_1", 10)
        await fleet_members.mark_left(db, "nod_1", 11)
        assert await changed(db, told.rev) == [
            ("token", "tok_1", token | {"created_at": 2, "expires_at": 3, "revoked_at": 9}),
            ("account", "acc_1", _account() | {"tier": "paid", "disabled": True, "deleted_at": 10}),
            ("member", "nod_1", _member() | {"left_at": 11}),
        ]
        assert (await fleet_changes.head(db)).rev == told.rev + 4

    on_a_store(tmp_path, body)


def _account() -> dict[str, object]:
    fields = {"id": "acc_1", "name": "ada", "tier": "free", "disabled": False}
    return fields | {"created_at": 1, "deleted_at": None}


def _member() -> dict[str, object]:
    fields = {"id": "nod_1", "name": "fra1", "region": "fra", "role": "hub", "nkey": "UFRA"}
    fields |= {"xkey": bytes(range(32)).hex(), "joined_at": 1, "left_at": None}
    return fields | {"dialled": "", "standby": False, "hub_since": 0}


def test_what_is_an_exits_own_is_not_recorded(tmp_path: Path) -> None:
    """Windows that are used, and accounts of self-tests: neither as changes, nor among everything."""

    async def body(db: aiosqlite.Connection) -> None:
        await fleet_changes.record(db)
        await accounts.insert(db, ADA)
        head = await fleet_changes.head(db)
        used = Windows(Window(1, 2, 3), Window(4, 5, 6))
        await accounts.put_windows(db, [replace(ADA, windows=used)])
        tried = replace(ADA, id=ids.temporary_account_id(), name="selftest")
        await accounts.insert(db, tried)
        await tokens.insert(db, tried, LAPTOP, bytes(32))
        assert [each.id for each in await fleet_changes.all_of(db, "account", "", 9)] == ["acc_1"]
        assert await fleet_changes.all_of(db, "token", "", 9) == []
        await selftest_accounts.erase(db, tried.id)
        assert await fleet_changes.head(db) == head

    on_a_store(tmp_path, body)


def test_a_row_that_is_gone_is_told(tmp_path: Path) -> None:
    """Nothing deletes accounts for good today; a spoke must not keep one for ever, all the same."""

    async def body(db: aiosqlite.Connection) -> None:
        await accounts.insert(db, ADA)
        await fleet_changes.record(db)
        head = await fleet_changes.head(db)
        await selftest_accounts.erase(db, "acc_1")
        assert await changed(db, head.rev) == [("account", "acc_1", None)]

    on_a_store(tmp_path, body)


def test_changes_are_told_apart_by_their_marks(tmp_path: Path) -> None:
    """One of the same number but another mark is unknown, as is one too old to be kept. Numbers never return."""

    async def body(db: aiosqlite.Connection) -> None:
        await fleet_changes.record(db)
        first = await fleet_changes.head(db)
        assert await fleet_changes.known(db, first)
        assert not await fleet_changes.known(db, Head(first.rev, "0123456789abcdef"))
        await accounts.insert(db, ADA)
        for number in range(fleet_changes.KEPT):
            await accounts.update(db, "acc_1", tier=Tier.FREE, disabled=number % 2 == 0)
        assert not await fleet_changes.known(db, first)
        rows = list(await db.execute_fetchall("SELECT count(*), max(rev) FROM fleet_changes"))
        assert tuple(rows[0]) == (fleet_changes.KEPT, fleet_changes.KEPT + 2)
        last = await fleet_changes.head(db)
        await fleet_changes.ignore(db)
        await fleet_state.leave(db)
        await fleet_changes.record(db)
        assert (await fleet_changes.head(db)).rev == last.rev + 1

    on_a_store(tmp_path, body)


def test_the_hosts_own_row_and_who_keeps_the_accounts(tmp_path: Path) -> None:
    """A hub keeps them itself, a spoke names the hub; what a spoke has followed and heard is as it was put."""

    async def body(db: aiosqlite.Connection) -> None:
        assert await fleet_state.kept_on(db) is None
        await fleet_state.enter(db, "hub", "nod_1", 1)
        assert await fleet_state.kept_on(db) is None
        await fleet_state.enter(db, "spoke", "nod_2", 1)
        assert await fleet_state.kept_on(db) == "the hub"
        await fleet_members.put(db, AMS)
        await fleet_members.put(db, FRA)
        assert await fleet_state.kept_on(db) == "fra1"
        await fleet_state.follow_to(db, 2, 7, "ab")
        await fleet_state.put_heard(db, Moment(1, 2, "boot"))
        row = await fleet_state.read(db)
        assert row is not None
        assert (row.role, row.node_id, row.gen, row.acc_rev, row.acc_mark) == ("spoke", "nod_2", 2, 7, "ab")
        assert row.heard == Moment(1, 2, "boot")
        assert row.kept == (0, Head(0, ""))
        await fleet_state.put_kept(db, 2, 8, "cd")
        row = await fleet_state.read(db)
        assert row is not None
        assert (row.kept, row.acc_rev) == ((2, Head(8, "cd")), 7)

    on_a_store(tmp_path, body)


def test_a_change_is_kept_where_a_second_hub_has_it(tmp_path: Path) -> None:
    """By its number in its generation; in a later one of this hub's own too, if it is recorded here still."""

    async def body(db: aiosqlite.Connection) -> None:
        await fleet_state.enter(db, "hub", "nod_1", 3)
        await fleet_changes.record(db)
        await accounts.insert(db, ADA)
        change = await fleet_changes.head(db)
        assert not await fleet_state.is_kept(db, 3, change)
        for gen, rev, kept in ((3, change.rev, True), (3, change.rev - 1, False), (2, change.rev + 9, False)):
            await fleet_state.put_kept(db, gen, rev, "ab")
            assert await fleet_state.is_kept(db, 3, change) is kept
        await fleet_state.put_kept(db, 4, change.rev, change.mark)
        assert await fleet_state.is_kept(db, 3, change)
        await fleet_state.put_kept(db, 4, change.rev - 1, "ab")
        assert not await fleet_state.is_kept(db, 3, change)
        await fleet_state.put_kept(db, 5, change.rev + 9, "ab")
        assert not await fleet_state.is_kept(db, 3, Head(change.rev, "of a hub that it followed"))

    on_a_store(tmp_path, body)


def test_members_have_names_and_keys_of_their_own(tmp_path: Path) -> None:
    """Those in the fleet; what one that has left had is free. A host that comes back is the same one."""

    async def body(db: aiosqlite.Connection) -> None:
        await fleet_members.put(db, FRA)
        await fleet_members.put(db, AMS)
        for taken in (replace(AMS, id="nod_3", nkey="U3"), replace(AMS, id="nod_3", name="third")):
            with pytest.raises(sqlite3.IntegrityError):
                await fleet_members.put(db, taken)
        assert await fleet_members.by_name(db, "ams1") == AMS
        await fleet_members.mark_left(db, "nod_2", 9)
        assert await fleet_members.by_name(db, "ams1") is None
        assert await fleet_members.by_id(db, "nod_2") == replace(AMS, left_at=9)
        assert await fleet_members.present(db) == [FRA]
        back = replace(AMS, nkey="UNEW", joined_at=10)
        await fleet_members.put(db, back)
        assert await fleet_members.everyone(db) == [FRA, back]

    on_a_store(tmp_path, body)


def test_an_invitation_is_one_hosts(tmp_path: Path) -> None:
    """The first that comes in time has it, and may ask again, also later; no other may."""

    async def body(db: aiosqlite.Connection) -> None:
        await fleet_invites.add(db, Invite("aa", "spoke", 0, 100))
        await fleet_invites.add(db, Invite("bb", "spoke", 0, 100))
        assert not await fleet_invites.use(db, "cc", "U1", 1)
        assert await fleet_invites.use(db, "aa", "U1", 99)
        assert not await fleet_invites.use(db, "aa", "U2", 99)
        assert await fleet_invites.use(db, "aa", "U1", 200)
        assert not await fleet_invites.use(db, "bb", "U2", 100)
        assert await fleet_invites.everything(db) == [
            Invite("aa", "spoke", 0, 100, "U1", 99),
            Invite("bb", "spoke", 0, 100),
        ]
        assert await fleet_invites.delete_expired(db, 101) == ["aa", "bb"]

    on_a_store(tmp_path, body)
