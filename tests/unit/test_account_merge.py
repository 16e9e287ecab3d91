"""Accounts of a host that joins a fleet: what it never used makes way, what it has used is kept, on the hub."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from appliance.domain.entities import Account
from appliance.domain.tiers import Tier
from appliance.fleet.accounts.merge import AccountMerge, merge, take_in
from appliance.store.queries import account_offers, accounts, devices
from appliance.store.queries.account_offers import OfferedAccount, OfferedToken
from tests.support.fleet.followers import AMS, followed, turn
from tests.support.unit.a_device import A_DEVICE

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.store.database import Store

TOKEN = OfferedToken("tok_" + "0" * 16, bytes(32), "laptop", 1, None)


def offered(name: str, *, used: bool = False) -> OfferedAccount:
    return OfferedAccount(f"acc_{name.encode().hex():0>24}", name, "free", False, 1, used, (TOKEN,))


def test_what_becomes_of_each() -> None:
    """A new name is taken in, used or not; of a taken one, the unused is dropped and the used is in the way."""
    host = [offered("owner"), offered("ada", used=True), offered("bob", used=True), offered("eve")]
    names = {"owner": "acc_f1", "ada": "acc_f2"}
    found = merge(host, names, set(), "")
    assert found == AccountMerge([host[2], host[3]], {}, ["owner"], ["ada"])
    found = merge(host, names, set(), "-ams")
    assert [each.name for each in found.taken_in] == ["ada-ams", "bob", "eve"]
    assert (found.renamed, found.dropped, found.in_the_way) == ({"ada": "ada-ams"}, ["owner"], [])
    assert [each.id for each in found.taken_in] == [each.id for each in host[1:]]


@pytest.mark.parametrize("other", ["the fleet has it", "the host has it", "too long", "not printable"])
def test_a_new_name_that_cannot_be_is_in_the_way(other: str) -> None:
    """The fleet's, another one of the host's, one that is too long, one that no table shows."""
    host, names, suffix = [offered("ada", used=True)], {"ada": "acc_f"}, "-ams"
    if other == "the fleet has it":
        names["ada-ams"] = "acc_g"
    elif other == "the host has it":
        host.append(offered("ada-ams"))
    else:
        suffix = "x" * 62 if other == "too long" else "\n"
    assert merge(host, names, set(), suffix).in_the_way == ["ada"]


def test_a_host_that_was_in_the_fleet_before_brings_nothing_new() -> None:
    """Its accounts are the fleet's already, by their ids, those that the fleet has deleted too: no token gets in."""
    host = [offered("ada", used=True), offered("bob", used=True)]
    assert merge(host, {"ada": host[0].id}, {each.id for each in host}, "") == AccountMerge([], {}, [], [])


async def prepared(store: Store) -> Account:
    """ada has a device, owner and eve were never used; tokens of ada: good, revoked, expired."""
    made = {name: Account(f"acc_{name.encode().hex():0>24}", name, Tier.PAID, False, 1) for name in ("ada", "owner")}
    async with store.write() as db:
        for each in made.values():
            await accounts.insert(db, each)
        await accounts.insert(db, Account("acc_selftest_1", "selftest-1", Tier.FREE, False, 1))
        for number, (revoked, expires) in enumerate([("NULL", "NULL"), ("2", "NULL"), ("NULL", "5")]):
            await db.execute(
                f"""
                INSERT INTO tokens (id, account_id, hash, created_at, revoked_at, expires_at)
                VALUES (?, ?, ?, 1, {revoked}, {expires})
                """,  # noqa: S608 (constants)
                (f"tok_{number:016x}", made["ada"].id, bytes([number]) * 32),
            )
        await devices.insert(db, [msgspec.structs.replace(A_DEVICE, account_id=made["ada"].id)])
    return made["ada"]


def test_a_hosts_accounts_become_the_fleets(tmp_path: Path) -> None:
    """They go to the hub and come back: the same account, with its device and its good token; asked twice, once."""

    async def story() -> None:
        async with followed(tmp_path, AMS) as (one, (ams,)):
            ada = await prepared(ams.store)
            await one.account("ada", 0)
            await one.account("owner")
            async with ams.store.read() as db:
                offer = await account_offers.read(db, 10)
            sent = msgspec.json.decode(msgspec.json.encode(offer), type=list[OfferedAccount])
            assert sent == offer
            async with one.store.write() as db:
                assert (await take_in(db, sent, "")).in_the_way == ["ada"]
                before = len(list(await db.execute_fetchall("SELECT id FROM accounts")))
                found = await take_in(db, sent, "-ams")
                assert (found.renamed, found.dropped) == ({"ada": "ada-ams"}, ["owner"])
                await take_in(db, sent, "-ams")
                assert len(list(await db.execute_fetchall("SELECT id FROM accounts"))) == before + 1
            await turn(one, [ams])
            with closing(sqlite3.connect(ams.path)) as db:
                assert db.execute("SELECT name, deleted_at FROM accounts WHERE id = ?", (ada.id,)).fetchall() == [
                    ("ada-ams", None)
                ]
                assert db.execute("SELECT id FROM tokens WHERE account_id = ?", (ada.id,)).fetchall() == [
                    ("tok_0000000000000000",)
                ]
                assert db.execute("SELECT removed_at FROM devices").fetchall() == [(None,)]
                assert (
                    db.execute("SELECT count(*) FROM accounts WHERE name = 'owner' AND deleted_at IS NULL").fetchone()[
                        0
                    ]
                    == 1
                )

    asyncio.run(story())


@pytest.mark.parametrize(
    "bad",
    [
        b'[["acc_selftest_1","ada","free",false,1,true,[]]]',
        b'[["acc_000000000000000000000000","","free",false,1,true,[]]]',
    ],
)
def test_what_is_no_offer_is_refused(bad: bytes) -> None:
    """Ids and hashes have their forms: what a host says is not taken as it is."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(bad, type=list[OfferedAccount])


def test_two_thousand_tokens_fit_into_one_message() -> None:
    """A message to a hub may have 256 KB."""
    tokens = tuple(msgspec.structs.replace(TOKEN, id=f"tok_{n:016x}", created_at=10**12) for n in range(2000))
    offer = [msgspec.structs.replace(offered("ada", used=True), tokens=tokens)]
    assert len(msgspec.json.encode(offer)) < 240_000
