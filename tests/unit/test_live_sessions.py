"""What is live, in memory."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from appliance.domain.accounting import Reading
from appliance.domain.charges import Amount
from appliance.domain.clock import Moment
from appliance.domain.entities import Account, Baseline, Reason, State
from appliance.domain.errors import StoreUnavailable
from appliance.domain.pricing import Rates
from appliance.domain.tiers import Tier
from appliance.store.database import Store
from appliance.store.live import LiveSessions
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import peers
from appliance.store.queries import sessions as session_rows
from appliance.store.rows import row_heap
from appliance.store.rows.offsets import Offsets
from appliance.store.rows.reading import read_rows
from tests.support.unit.a_session import A_SESSION
from tests.support.unit.session_rows import rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.domain.entities import Session
    from appliance.store.rows.session_rows import SessionRows

KEY = A_SESSION.public_key
BASELINE = Baseline("boot", 4, 1, 2)
ACCOUNT = Account("acc_1", "ada", Tier.FREE, False, 0)
HEARTBEAT = Moment(1, 2, "boot")


def refuse_memory(cdecl: str, length: int) -> object:
    raise MemoryError(f"{length} of {cdecl}")


def live() -> LiveSessions:
    found = LiveSessions()
    found.load(rows_of([A_SESSION], [ACCOUNT], {KEY: BASELINE}), HEARTBEAT)
    return found


def test_live_and_closing_sessions_are_read_with_their_baselines(tmp_path: Path) -> None:
    """Sessions that have peers are read as they were stored; pending and ended ones are not, but addresses are."""
    every = [
        structs.replace(
            A_SESSION,
            id=f"ses_{n}",
            state=state,
            public_key=bytes([n]) * 32,
            address_offset=n,
            rates=Rates("eur", 5, 2**40) if state is State.LIVE else None,
        )
        for n, state in enumerate((State.LIVE, State.LIVE, State.LIVE, State.PENDING), start=2)
    ]
    live_, closing, ended, pending = every
    count = [Reading(Amount(0, 5, 2**62), 0, 0, structs.replace(s, last_handshake_at=3), BASELINE) for s in every[:2]]

    async def body() -> tuple[SessionRows, set[int], list[Session]]:
        store = await Store.open(tmp_path / "store.sqlite")
        async with store.write() as db:
            await account_rows.insert(db, ACCOUNT)
            await session_rows.insert(db, [(s, None) for s in every])
            await peers.add_readings(db, count)
            await session_rows.mark_closing(db, [closing.id], Reason.ADMIN, "bye")
            await session_rows.mark_terminated(db, [(ended.id, Reason.CLOSED, 9)])
            rows, offsets = await read_rows(db, await account_rows.of_unfinished_sessions(db))
            stored = [s for s in await session_rows.unfinished(db) if s.id in (live_.id, closing.id)]
        await store.close()
        return rows, offsets, stored

    rows, offsets, stored = asyncio.run(body())
    found = LiveSessions()
    assert not found.in_sync
    found.load(rows, HEARTBEAT)
    assert found.in_sync
    assert list(found) == stored
    assert [(s.state, s.told, s.bytes_out) for s in found] == [(State.LIVE, "", 2**62), (State.CLOSING, "bye", 2**62)]
    assert offsets == {live_.address_offset, closing.address_offset, pending.address_offset}
    assert all(found.baseline(key) == BASELINE for key in found.public_keys())
    assert list(found.owners()) == [ACCOUNT]
    assert found.heartbeat == HEARTBEAT
    assert len(found) == 2


def test_an_ended_session_goes_with_its_baseline() -> None:
    """An ended session goes with its baseline."""
    found = live()
    found.drop(KEY)
    assert not found
    assert found.baseline(KEY) is None


def test_a_successor_takes_over_the_baseline() -> None:
    """A session that takes over the key takes over its baseline too."""
    found, successor = live(), structs.replace(A_SESSION, id="ses_2")
    found.put(successor)
    assert list(found) == [successor]
    assert found.baseline(KEY) == BASELINE


def test_a_session_is_found_by_its_id_until_it_has_ended() -> None:
    """A session is found by its id until it has ended or its key is another's, with what was last counted."""
    found = live()
    assert found.by_id("ses_1") == found[KEY] == A_SESSION
    assert found.by_id("ses_2") is None
    counted = structs.replace(A_SESSION, bytes_in=5)
    found.apply_count([Reading(Amount(0, 5, 0), 0, 0, counted, BASELINE)], {})
    assert found.by_id("ses_1") == counted
    found.put(structs.replace(A_SESSION, id="ses_2"))
    assert found.by_id("ses_1") is None
    assert found.by_id("ses_2") == found[KEY]
    found.drop(KEY)
    assert found.by_id("ses_2") is None


def test_by_id_while_stale() -> None:
    """Memory that may differ from the store is not asked."""
    found = live()
    found.mark_stale()
    assert found.by_id("ses_1") is None
    found.load(rows_of([structs.replace(A_SESSION, id="ses_2")], [ACCOUNT]), HEARTBEAT)
    assert found.by_id("ses_1") is None
    assert found.by_id("ses_2") is not None


def test_put_keeps_the_windows_that_are_known() -> None:
    """An account that has a session here has the newer windows here."""
    found = live()
    found.put(A_SESSION, structs.replace(ACCOUNT, tier=Tier.PAID))
    assert found.owner(A_SESSION) == ACCOUNT


def at(wall_ms: int, boot_ms: int = 0) -> Moment:
    return Moment(wall_ms, boot_ms, "boot")


def test_sessions_come_in_the_order_in_which_they_are_due() -> None:
    """Sessions come in the order in which they expire and were heard, and are due to be counted once their tunnels
    carry no longer; one that ends leaves all three."""
    found, tier = live(), ACCOUNT.tier
    key, end = b"\x02" * 32, A_SESSION.expires_at
    found.put(
        structs.replace(
            A_SESSION,
            id="ses_2",
            public_key=key,
            expires_at=5,
            counted_until_ms=6,
            carries_until_ms=9,
            quiet_since_ms=7,
        )
    )
    assert found.next_expiry() == 5
    assert (found.stopped(at(0, 8), 10), found.stopped(at(0, 9), 10)) == ([], [key])
    assert list(found.due(at(end), {tier: 0})) == [key, KEY]
    assert (list(found.due(at(0, 17), {tier: 10})), list(found.due(at(0, 18), {tier: 10}))) == ([], [key])
    found.drop(key)
    assert list(found.due(at(end), {tier: 0})) == [KEY]
    found.drop(KEY)
    assert found.next_expiry() is None
    assert not [*found.due(at(end, 10**9), {tier: 1}), *found.stopped(at(end, 2**60), 10)]


def test_those_that_carry_no_longer_are_counted_once() -> None:
    """They are told, some at a time in the order of their addresses, until they were counted; a handshake takes one out
    until its tunnel stops again."""
    found = LiveSessions()
    every = [
        structs.replace(A_SESSION, id=f"ses_{n}", public_key=bytes([n]) * 32, address_offset=9 - n, carries_until_ms=ms)
        for n, ms in enumerate((80_000, 90_000, 85_000, 77_000, 0))
    ]
    keys = [s.public_key for s in every]
    found.load(rows_of(every, [ACCOUNT]), HEARTBEAT)
    assert found.stopped(at(0, 79_999), 10) == []
    assert found.stopped(at(0, 90_000), 10) == [keys[2], keys[1], keys[0]]
    assert found.stopped(at(0, 90_000), 2) == [keys[2], keys[1]]
    counted = structs.replace(every[2], counted_until_ms=90_000)
    again = structs.replace(every[1], counted_until_ms=90_000, carries_until_ms=270_000)
    found.apply_count([Reading(Amount(), 0, 0, after, None) for after in (counted, again)], {})
    assert found.stopped(at(0, 90_000), 10) == [keys[0]]
    found.drop(keys[0])
    assert found.stopped(at(0, 269_999), 10) == []
    assert found.stopped(at(0, 270_000), 10) == [keys[1]]


def test_closing_sessions_are_at_hand_until_they_have_ended() -> None:
    """Closing sessions are due, until they have ended or their key is another session's."""
    found = live()
    found.put(structs.replace(A_SESSION, state=State.CLOSING, reason=Reason.ADMIN))
    assert list(found.due(at(0), {})) == [KEY]
    found.put(structs.replace(A_SESSION, id="ses_2"))
    assert list(found.due(at(0), {})) == []


def test_a_changed_peer_is_told_once() -> None:
    """Whose peer may have to change is told once; after a load, which is told by its number, it may be anybody's."""
    found = live()
    assert (found.take_touched(), found.loads) == (set(), 1)
    found.put(A_SESSION)
    assert found.take_touched() == {KEY}
    assert found.take_touched() == set()
    found.drop(KEY)
    assert found.take_touched() == {KEY}


def test_a_commit_that_failed_makes_memory_stale(tmp_path: Path) -> None:
    """It may have been made all the same, so that nothing more is counted before the store was read again. What fails
    before it has changed nothing."""

    async def body() -> None:
        store = await Store.open(tmp_path / "store.sqlite")
        found = live()
        with pytest.raises(StoreUnavailable):
            async with found.committing(store):
                raise StoreUnavailable
        assert found.in_sync
        real = store._writer.execute

        async def execute(sql: str) -> Any:
            done = await real(sql)
            if sql == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return done

        store._writer.execute = execute  # type: ignore[method-assign,assignment]
        with pytest.raises(StoreUnavailable):
            async with found.committing(store):
                pass
        assert not found.in_sync
        await store.close()

    asyncio.run(body())


def test_memory_that_could_not_follow_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no memory for the row of a session that the store has, all is read again."""
    found = LiveSessions()
    found.load(rows_of([], [ACCOUNT]), HEARTBEAT)
    monkeypatch.setattr(row_heap, "new_uncleared", refuse_memory)
    sessions = (structs.replace(A_SESSION, id=f"ses_{n}", public_key=bytes([n]) * 32) for n in range(256))
    with pytest.raises(MemoryError):
        deque(map(found.put, sessions))
    assert not found.in_sync


def test_reading_the_store_again_does_not_disturb_who_reads_memory() -> None:
    """Sessions and keys that are being gone through are those from before, whatever is loaded or dropped meanwhile."""
    found = LiveSessions()
    every = [structs.replace(A_SESSION, id=f"ses_{n}", public_key=bytes([n]) * 32) for n in range(4)]
    found.load(rows_of(every, [ACCOUNT]), HEARTBEAT)
    reading, keys = iter(found), iter(found.public_keys())
    assert (next(reading), next(keys)) == (every[0], every[0].public_key)
    found.drop(every[1].public_key)
    assert (next(reading), next(keys)) == (every[2], every[2].public_key)
    found.load(rows_of([], [ACCOUNT]), HEARTBEAT)
    assert (list(reading), list(keys)) == ([every[3]], [every[3].public_key])


def test_public_keys_are_a_set() -> None:
    """They are compared and combined as sets are."""
    keys, other = live().public_keys(), b"other"
    assert (keys & {KEY, other}, keys - {other}, {KEY, other} - keys, keys | {other}, keys ^ {KEY}) == (
        *({KEY}, {KEY}, {other}, {KEY, other}, set()),
    )


def test_an_account_without_sessions_is_taken_as_it_is_given() -> None:
    """What is known of an account whose sessions have ended may be older than what is read with the next one."""
    found = live()
    other = structs.replace(A_SESSION, id="ses_2", public_key=b"2" * 32)
    paid = structs.replace(ACCOUNT, tier=Tier.PAID)
    found.put(other, paid)
    assert found.owner(other) == ACCOUNT  # it had one
    for session in (A_SESSION, other):
        found.drop(session.public_key)
    found.put(other, paid)
    assert found.owner(other) == paid
    assert found.due(Moment(0, 10**6, "boot"), {Tier.FREE: 0, Tier.PAID: 5}) == [other.public_key]


def test_sessions_are_taken_account_by_account() -> None:
    """Of the given ones, so many at least, and an account's at once; the others of the account are left out."""
    accounts = [Account(f"acc_{n}", f"a{n}", Tier.FREE, False, 0) for n in range(4)]
    sessions = [
        structs.replace(A_SESSION, id=f"ses_{n}", account_id=f"acc_{n % 4}", public_key=bytes([n]) * 32)
        for n in range(12)
    ]
    found = LiveSessions()
    found.load(rows_of(sessions, accounts), HEARTBEAT)
    wanted = {session.public_key for session in sessions[1:]}
    pieces = list(found.by_account(wanted, 4))
    assert sorted(key for piece in pieces for key in piece) == sorted(wanted)
    assert all(len(piece) >= 4 for piece in pieces[:-1])
    homes = [{found[key].account_id for key in piece} for piece in pieces]
    assert sum(map(len, homes)) == 4
    assert not list(found.by_account(set(), 4))


def test_offsets_are_a_set() -> None:
    """Offsets are kept as in a set of numbers, whatever their order."""
    found = Offsets([7, 2, 7, 65534])
    assert found == {2, 7, 65534}
    assert (len(found), [*found | {3}]) == (3, [2, 3, 7, 65534])
    assert [each for each in (0, 2, 6, 65535, 10**6, -1, "2") if each in found] == [2]
    assert Offsets() == set()
