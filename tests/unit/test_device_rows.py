"""Devices in the store: what is found by what, what a removal frees, and what a device keeps of its sessions."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from msgspec import structs

from appliance.domain.accounting import Reading
from appliance.domain.charges import Amount
from appliance.domain.entities import Account, Baseline, Reason
from appliance.domain.tiers import Tier
from appliance.store.database import Store
from appliance.store.queries import accounts, devices, peers, retention, sessions
from tests.support.unit.a_device import A_DEVICE
from tests.support.unit.a_session import A_SESSION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import aiosqlite

    from appliance.domain.device import Device

T = TypeVar("T")

ADA, BOB = (Account(f"acc_{n}", name, Tier.FREE, False, 0) for n, name in ((1, "ada"), (2, "bob")))
LATER = 9_000
MOST = 2**63 - 1
BASELINE = Baseline("boot", 4, 5, 6)
USED = Amount(time_ms=30, bytes_in=10, bytes_out=20)


def device(number: int, **changes: Any) -> Device:
    """Another device, whose name, key and address are its own."""
    own = {"id": f"dev_{number}", "name": f"d{number}", "public_key": bytes([number]) * 32, "address_offset": number}
    return structs.replace(A_DEVICE, **(own | changes))


def of_bob(number: int, **changes: Any) -> Device:
    return device(number, account_id=BOB.id, account=BOB.name, **changes)


def stored(path: Path, body: Callable[[aiosqlite.Connection], Awaitable[T]]) -> T:
    """What `body` returns, in one transaction of a store with two accounts."""

    async def run() -> T:
        store = await Store.open(path / "store.sqlite")
        try:
            async with store.write() as db:
                await accounts.insert(db, ADA)
                await accounts.insert(db, BOB)
                return await body(db)
        finally:
            await store.close()

    return asyncio.run(run())


async def everyone(db: aiosqlite.Connection) -> list[Device]:
    return sorted([found async for found in devices.each(db)], key=lambda found: found.address_offset)


# What is found ---------------------------------------------------------------------------------------


def test_a_device_is_read_as_it_was_made(tmp_path: Path) -> None:
    """All that a device is made with comes back, with what is its account's, by id, name and key, and among all."""
    made = device(2, name="Zoe\u0308's ❤️", ipv6=False, endpoint="[2001:db8::1]:51820")

    async def body(db: aiosqlite.Connection) -> list[Device | None]:
        await devices.insert(db, [made, of_bob(3)])
        await accounts.update(db, BOB.id, tier=Tier.PAID, disabled=True)
        return [
            await devices.by_id(db, ADA.id, made.id),
            await devices.by_name(db, ADA.id, "Zo\u00eb's ❤️"),
            await devices.by_key(db, made.public_key),
            *await everyone(db),
        ]

    bobs = of_bob(3, account_tier=Tier.PAID, account_disabled=True)
    assert stored(tmp_path, body) == [made, made, made, made, bobs]


def test_devices_are_an_accounts_own(tmp_path: Path) -> None:
    """Another account's device is found neither by its id nor by its name; each account counts its own."""

    async def body(db: aiosqlite.Connection) -> None:
        await devices.insert(db, [device(2), of_bob(3), of_bob(4, name="d2")])
        assert await devices.by_id(db, BOB.id, "dev_2") is None
        assert await devices.by_id(db, ADA.id, "dev_9") is None
        assert await devices.by_name(db, ADA.id, "d3") is None
        assert await devices.by_name(db, BOB.id, "d2") == of_bob(4, name="d2")
        assert await devices.by_key(db, b"\x09" * 32) is None
        assert [await devices.count_of(db, account.id) for account in (ADA, BOB)] == [1, 2]
        assert await devices.count(db) == 3

    stored(tmp_path, body)


def test_pages_are_newest_first(tmp_path: Path) -> None:
    """Pages follow one another without a gap, also where a device was removed between two of them."""

    async def body(db: aiosqlite.Connection) -> None:
        for number in range(2, 9):
            await devices.insert(db, [device(number, created_at=7), of_bob(number + 100)])
        first = await devices.page(db, ADA.id, 3)
        assert [found.name for found in first] == ["d8", "d7", "d6"]
        second = await devices.page(db, ADA.id, 3, before="dev_6")
        assert [found.name for found in second] == ["d5", "d4", "d3"]
        await ended_session(db, "dev_3")
        await devices.remove(db, ["dev_3", "dev_7"], LATER)
        assert [found.name for found in await devices.page(db, ADA.id, 3, before="dev_3")] == ["d2"]
        assert [found.name for found in await devices.page(db, ADA.id, 9)] == ["d8", "d6", "d5", "d4", "d2"]
        assert await devices.page(db, ADA.id, 9, before="dev_none") == []

    stored(tmp_path, body)


def test_places_are_the_addresses_of_devices(tmp_path: Path) -> None:
    """Each device has its address, with IPv6 or without; a removed one has none."""

    async def body(db: aiosqlite.Connection) -> dict[int, bool]:
        await devices.insert(db, [device(2), of_bob(3, ipv6=False), device(4)])
        await devices.remove(db, ["dev_4"], LATER)
        return await devices.places(db)

    assert stored(tmp_path, body) == {2: True, 3: False}


# What is one device's alone --------------------------------------------------------------------------


TAKEN = {
    "name": device(3, name="d2"),
    "name in another form": device(3, name="Zo\u00eb"),
    "key": of_bob(3, public_key=device(2).public_key),
    "address": of_bob(3, address_offset=2),
    "id": of_bob(3, id="dev_2"),
}


@pytest.mark.parametrize("other", TAKEN.values(), ids=TAKEN)
def test_nothing_is_two_devices(tmp_path: Path, other: Device) -> None:
    """A name is one device's of its account, a key and an address one device's of all."""

    async def body(db: aiosqlite.Connection) -> None:
        await devices.insert(db, [device(2), device(9, name="Zoe\u0308")])
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            await devices.insert(db, [other])
        assert await devices.count(db) == 2

    stored(tmp_path, body)


def test_a_removal_frees_everything(tmp_path: Path) -> None:
    """Name, key and address of a removed device are another's at once, though a session names it still."""

    async def body(db: aiosqlite.Connection) -> None:
        await devices.insert(db, [device(2), device(3)])
        await ended_session(db, "dev_2")
        await devices.remove(db, ["dev_2", "dev_3"], LATER)
        assert await everyone(db) == []
        assert await devices.by_id(db, ADA.id, "dev_2") is None
        again = [device(2, id="dev_4"), of_bob(3, id="dev_5")]
        await devices.insert(db, again)
        assert await everyone(db) == again
        # Changes of what has gone change nothing.
        await devices.rename(db, "dev_2", "other")
        await devices.pause(db, "dev_2", paused=True)
        await devices.rotate(db, "dev_2", b"\x07" * 32, "")
        await devices.remove(db, ["dev_2"], LATER + 1)
        rows = await db.execute_fetchall("SELECT id, name, paused, removed_at FROM devices ORDER BY id")
        assert [tuple(row) for row in rows] == [
            ("dev_2", "d2", 0, LATER),
            ("dev_4", "d2", 0, None),
            ("dev_5", "d3", 0, None),
        ]

    stored(tmp_path, body)


def test_an_account_loses_all_its_devices(tmp_path: Path) -> None:
    """All devices of an account go at once, and nobody else's."""

    async def body(db: aiosqlite.Connection) -> list[Device]:
        await devices.insert(db, [device(2), device(3), of_bob(4)])
        await devices.remove_of(db, ADA.id, LATER)
        return await everyone(db)

    assert stored(tmp_path, body) == [of_bob(4)]


# What changes ----------------------------------------------------------------------------------------


def test_a_device_changes_in_one_thing(tmp_path: Path) -> None:
    """A new name, a pause and its end change that alone, on that device alone."""

    async def body(db: aiosqlite.Connection) -> None:
        await devices.insert(db, [device(2), device(3)])
        await devices.rename(db, "dev_2", "Zoe\u0308")
        await devices.pause(db, "dev_3", paused=True)
        assert await everyone(db) == [device(2, name="Zoe\u0308"), device(3, paused=True)]
        assert await devices.by_name(db, ADA.id, "Zo\u00eb") == device(2, name="Zoe\u0308")
        assert await devices.by_name(db, ADA.id, "d2") is None
        await devices.rename(db, "dev_2", "Zo\u00eb")
        await devices.pause(db, "dev_3", paused=False)
        assert await everyone(db) == [device(2, name="Zo\u00eb"), device(3)]
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            await devices.rename(db, "dev_3", "Zoe\u0308")

    stored(tmp_path, body)


def test_a_rotated_key_is_a_new_peer(tmp_path: Path) -> None:
    """Another key has the address and the totals of the one before, and counters of its own."""
    used = {"bytes_in": 10, "bytes_out": 20, "counted_ms": 30, "last_handshake_at": 40}

    async def body(db: aiosqlite.Connection) -> None:
        await devices.insert(db, [device(2), device(3)])
        await ended_session(db, "dev_2")
        assert await everyone(db) == [device(2, **used, handshake_seen_ns=50, baseline=BASELINE), device(3)]
        await devices.rotate(db, "dev_2", b"\x09" * 32, "192.0.2.9:51820")
        rotated = device(2, **used, public_key=b"\x09" * 32, endpoint="192.0.2.9:51820")
        assert await everyone(db) == [rotated, device(3)]
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            await devices.rotate(db, "dev_3", b"\x09" * 32, "")

    stored(tmp_path, body)


def test_a_peer_that_is_added_anew_counts_from_zero(tmp_path: Path) -> None:
    """What was last seen of such a peer is forgotten, and its totals are not."""

    async def body(db: aiosqlite.Connection) -> list[Device]:
        await devices.insert(db, [device(2), device(3)])
        for device_id in ("dev_2", "dev_3"):
            await ended_session(db, device_id)
        await devices.forget_baselines(
            db, [("dev_3", device(3).public_key), ("dev_2", b"its last key"), ("dev_none", b"")]
        )
        return await everyone(db)

    used = {"bytes_in": 10, "bytes_out": 20, "counted_ms": 30, "last_handshake_at": 40}
    assert stored(tmp_path, body) == [
        device(2, **used, handshake_seen_ns=50, baseline=BASELINE),
        device(3, **used),
    ]


# What is left of sessions ----------------------------------------------------------------------------


async def ended_session(
    db: aiosqlite.Connection,
    device_id: str,
    session_id: str = "",
    used: Amount = USED,
    baseline: Baseline | None = BASELINE,
    handshake_at: int | None = 40,
) -> None:
    """The device has had a session, with a reading, which has just ended."""
    rows = await db.execute_fetchall("SELECT public_key, address_offset FROM devices WHERE id = ?", (device_id,))
    ((key, offset),) = rows
    session = structs.replace(
        A_SESSION, id=session_id or f"ses_{device_id}", public_key=key, address_offset=offset, handshake_seen_ns=50
    )
    await sessions.insert(db, [(session, None)])
    await db.execute("UPDATE sessions SET device_id = ? WHERE id = ?", (device_id, session.id))
    await peers.add_readings(
        db, [Reading(used, 0, 0, structs.replace(session, last_handshake_at=handshake_at), baseline)]
    )
    await sessions.mark_terminated(db, [(session.id, Reason.IDLE, LATER)])
    await devices.add_ended(db, [session.id])
    await peers.drop(db, [offset])


def test_a_device_has_the_sum_of_its_sessions(tmp_path: Path) -> None:
    """Figures of ended sessions add up; handshake and counters are those of the last one, and without any, none are."""

    async def body(db: aiosqlite.Connection) -> list[Device]:
        await devices.insert(db, [device(2), device(3)])
        await ended_session(db, "dev_2", "ses_1")
        await ended_session(db, "dev_2", "ses_2", Amount(3, 1, 2), Baseline("next", 7, 8, 9), 60)
        (found, _) = await everyone(db)
        assert found == device(
            2,
            bytes_in=11,
            bytes_out=22,
            counted_ms=33,
            last_handshake_at=60,
            handshake_seen_ns=50,
            baseline=Baseline("next", 7, 8, 9),
        )
        await ended_session(db, "dev_2", "ses_3", Amount(0, MOST, MOST), None, None)
        return await everyone(db)

    full = {"bytes_in": MOST, "bytes_out": MOST, "counted_ms": 33, "last_handshake_at": 60, "handshake_seen_ns": 50}
    assert stored(tmp_path, body) == [device(2, **full), device(3)]


def test_a_session_that_has_not_ended_adds_nothing(tmp_path: Path) -> None:
    """Neither a live session nor one that is of no device is added to any."""

    async def body(db: aiosqlite.Connection) -> list[Device]:
        await devices.insert(db, [device(2), device(3)])
        live, other = (structs.replace(A_SESSION, id=f"ses_{n}", address_offset=n) for n in (2, 3))
        await sessions.insert(db, [(live, None), (structs.replace(other, public_key=bytes(32)), None)])
        await db.execute("UPDATE sessions SET device_id = 'dev_2', bytes_in = 7 WHERE id = 'ses_2'")
        await sessions.mark_terminated(db, [("ses_3", Reason.CLOSED, LATER)])
        await devices.add_ended(db, ["ses_2", "ses_3", "ses_none"])
        return await everyone(db)

    assert stored(tmp_path, body) == [device(2), device(3)]


def test_a_removed_device_goes_with_its_last_session(tmp_path: Path) -> None:
    """A removed device without a session goes at once; with one, after it, and no sooner than asked."""

    async def body(db: aiosqlite.Connection) -> None:
        await devices.insert(db, [device(2), device(3), device(4)])
        await ended_session(db, "dev_2")
        await ended_session(db, "dev_4")
        await devices.remove(db, ["dev_2", "dev_3"], LATER)

        async def kept() -> list[str]:
            return [row[0] for row in await db.execute_fetchall("SELECT id FROM devices ORDER BY id")]

        assert await kept() == ["dev_2", "dev_4"]
        assert await devices.removed_before(db, LATER + 1, 9) == []
        await devices.forget(db, ["dev_2", "dev_4"])
        assert await kept() == ["dev_2", "dev_4"]
        await retention.delete_sessions(db, ["ses_dev_2", "ses_dev_4"])
        assert await devices.removed_before(db, LATER, 9) == []
        assert await devices.removed_before(db, LATER + 1, 9) == ["dev_2"]
        await devices.forget(db, ["dev_2", "dev_4"])
        assert await kept() == ["dev_4"]

    stored(tmp_path, body)
