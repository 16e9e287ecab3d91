"""Retention: what goes when, in pieces between which others write, and what is left when it is stopped."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import asynccontextmanager, closing
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from appliance.config.load import parse_settings
from appliance.domain.tiers import Tier
from appliance.server.retention import LINES_A_PIECE, SESSIONS_A_PIECE, Retention
from appliance.store.database import Store
from tests.support.api.exit_under_test import PATIENCE_S, Client, ExitUnderTest, new_key, on_exit
from tests.support.ended_sessions import DAYS_OF_EACH, fill

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiosqlite

HOUR = 3600
DAY = 24 * HOUR
UNHURRIED = "[tiers.paid]\nidle_timeout = 0\n[tiers.free]\nidle_timeout = 0\n"


def retention_of(exit_: ExitUnderTest, store: Store | None = None) -> Retention:
    return Retention(store or exit_.store, exit_.parts.services.terms, exit_.settings.meter, exit_.clock)


async def sweep(exit_: ExitUnderTest, after: float = 0) -> None:
    """Time passes, with a tick; then what is due goes."""
    await exit_.tick(after=after)
    await retention_of(exit_).sweep(asyncio.Event())


async def ended(exit_: ExitUnderTest, name: str, tier: Tier) -> tuple[Client, str]:
    """A session that has moved something, and has ended."""
    client = await exit_.client(name, tier)
    text, raw = new_key()
    session_id = (await client.open(client_public_key=text))["id"]
    exit_.tunnel.add_traffic(raw, rx=1000, tx=7)
    await exit_.tick(after=10)
    await client.delete(session_id)
    return client, session_id


def kept(exit_: ExitUnderTest, session_id: str) -> tuple[bool, bool, bool]:
    """Whether the store has the session, a daily total of it, and an invoice line."""
    tables = (("sessions", "id"), ("usage_days", "session_id"), ("invoice_lines", "session_id"))
    session, day, line = (
        exit_.rows(f"SELECT count(*) FROM {table} WHERE {column} = ?", session_id) != [(0,)]  # noqa: S608 - from above
        for table, column in tables
    )
    return session, day, line


# What goes, and when --------------------------------------------------------------------------------


@on_exit(f'[meter]\nretention = "90d"\n{UNHURRIED}')
async def test_an_ended_session_answers_until_its_retention(exit_: ExitUnderTest) -> None:
    """An ended session answers until retention removes it, counted from its end; a live one stays."""
    ada = await exit_.client()
    text, raw = new_key()
    session_id, other = (await ada.open(client_public_key=text))["id"], (await ada.open())["id"]
    exit_.clock.advance(DAY)
    await ada.delete(session_id)
    await sweep(exit_, after=90 * DAY)
    assert (await ada.status_answer(session_id)).status_code == 200
    await sweep(exit_, after=1)
    assert (await ada.status_answer(session_id)).status_code == 404
    assert (await ada.status(other))["terminated_reason"] == "expired", "it ended later than the other"
    assert exit_.rows("SELECT count(*) FROM baselines WHERE public_key = ?", raw) == [(0,)]


@on_exit(f'[meter]\nretention = "90d"\n{UNHURRIED}')
async def test_a_removed_device_goes_with_its_last_session(exit_: ExitUnderTest) -> None:
    """What a session names is there for as long as the session is, and goes in the same sweep; other devices stay."""
    _, first = await ended(exit_, "ada", Tier.FREE)
    _, last = await ended(exit_, "bob", Tier.FREE)
    for number, session_id in enumerate((first, last, last), start=1):
        await exit_.admin(
            """
            INSERT INTO devices (id, account_id, name, name_key, region, public_key, address_offset, ipv6, created_at,
                removed_at, endpoint)
            SELECT 'dev_' || ?1, account_id, 'phone', 'phone', region, public_key, 7, 1, created_at,
                iif(?1 = 3, NULL, terminated_at), '' FROM sessions WHERE id = ?2
            """,
            number,
            session_id,
        )
    await exit_.admin("UPDATE sessions SET device_id = 'dev_1'")
    await exit_.admin("UPDATE sessions SET device_id = 'dev_2' WHERE id = ?", last)
    await sweep(exit_, after=90 * DAY - 10)
    assert exit_.rows("SELECT id FROM devices ORDER BY id") == [("dev_1",), ("dev_2",), ("dev_3",)]
    await sweep(exit_, after=1)
    assert exit_.rows("SELECT id FROM devices ORDER BY id") == [("dev_2",), ("dev_3",)]
    await sweep(exit_, after=10)
    assert exit_.rows("SELECT id FROM devices") == [("dev_3",)]


@on_exit(f'[meter]\nretention = "90d"\n{UNHURRIED}')
async def test_a_tick_deletes_nothing(exit_: ExitUnderTest) -> None:
    """What is due waits for the task in the background, however many ticks there are."""
    _, session_id = await ended(exit_, "ada", Tier.FREE)
    for _ in range(3):
        await exit_.tick(after=91 * DAY)
    assert kept(exit_, session_id) == (True, False, False)
    await sweep(exit_)
    assert kept(exit_, session_id) == (False, False, False)


@on_exit(f'[pricing]\nkeep = "400d"\n[meter]\nretention = "90d"\n{UNHURRIED}')
async def test_invoices_outlive_their_sessions(exit_: ExitUnderTest) -> None:
    """The daily totals of a session without an invoice line go with it; a paid session's stay with its lines for
    `pricing.keep` from its end."""
    _, free = await ended(exit_, "bob", Tier.FREE)
    _, paid = await ended(exit_, "ada", Tier.PAID)  # ten seconds later
    await exit_.admin("INSERT INTO usage_days VALUES (?, '2026-09-21', 1, 2, 3)", free)
    await sweep(exit_, after=90 * DAY - 10)
    assert (kept(exit_, paid), kept(exit_, free)) == ((True, True, True), (True, True, False))
    await sweep(exit_, after=11)
    assert (kept(exit_, paid), kept(exit_, free)) == ((False, True, True), (False, False, False))
    await sweep(exit_, after=310 * DAY - 1)
    assert kept(exit_, paid) == (False, True, True)
    await sweep(exit_, after=1)
    assert kept(exit_, paid) == (False, False, False)


@on_exit(f'[pricing]\nkeep = "1d"\n[meter]\nretention = "90d"\n{UNHURRIED}')
async def test_invoices_may_go_before_their_sessions(exit_: ExitUnderTest) -> None:
    """With a `keep` under the retention, a session is shown for longer than its invoice; both go in the end."""
    ada, paid = await ended(exit_, "ada", Tier.PAID)
    await sweep(exit_, after=DAY + 1)
    assert kept(exit_, paid) == (True, False, False)
    assert (await ada.status(paid))["bytes_in"] == 1000
    await sweep(exit_, after=90 * DAY)
    assert kept(exit_, paid) == (False, False, False)


@on_exit('[pricing]\nkeep = "1s"\n[tiers.paid]\nidle_timeout = 0\n')
async def test_a_live_sessions_lines_stay(exit_: ExitUnderTest) -> None:
    """A line of a month that is over stays while its session is live; once that has ended, both go."""
    ada = await exit_.client()
    session_id = (await ada.connect())["id"]
    for _ in range(3):
        await sweep(exit_, after=9 * DAY)
        await exit_.shake(exit_.key_of(session_id))
        await exit_.tick()
    months = exit_.rows("SELECT month, ended_at IS NULL FROM invoice_lines ORDER BY month")
    assert months == [("2026-09", 0), ("2026-10", 1)]
    # Even if something else had ended it: what is live is looked up.
    await exit_.admin("UPDATE invoice_lines SET ended_at = 1")
    await sweep(exit_)
    assert kept(exit_, session_id) == (True, True, True)
    await ada.delete(session_id)
    await sweep(exit_, after=2)
    assert kept(exit_, session_id) == (True, False, False)


@on_exit(f"[pricing]\nkeep = 0\n[meter]\nretention = 0\n{UNHURRIED}")
async def test_0_keeps_for_ever(exit_: ExitUnderTest) -> None:
    """0 is for ever, for sessions and for invoices."""
    _, paid = await ended(exit_, "ada", Tier.PAID)
    _, free = await ended(exit_, "bob", Tier.FREE)
    await sweep(exit_, after=100 * 365 * DAY)
    assert (kept(exit_, paid), kept(exit_, free)) == ((True, True, True), (True, False, False))


@on_exit(UNHURRIED)
async def test_invoices_without_prices_are_kept_for_ten_years(exit_: ExitUnderTest) -> None:
    """Without [pricing] there are lines too, without costs: they stay for as long as by default."""
    _, paid = await ended(exit_, "ada", Tier.PAID)
    await sweep(exit_, after=3650 * DAY)
    assert kept(exit_, paid) == (False, True, True)
    await sweep(exit_, after=1)
    assert kept(exit_, paid) == (False, False, False)


@on_exit(f"[pricing]\n{UNHURRIED}")
async def test_keep_follows_a_reload(exit_: ExitUnderTest) -> None:
    """`pricing.keep` changes with a reload, like the prices beside it."""
    _, paid = await ended(exit_, "ada", Tier.PAID)
    await sweep(exit_, after=2 * DAY)
    assert kept(exit_, paid) == (True, True, True)
    exit_.parts.services.terms.take_over(parse_settings('[pricing]\nkeep = "1d"\n', {}, "host"))
    await sweep(exit_)
    assert kept(exit_, paid) == (True, False, False)


# In pieces ------------------------------------------------------------------------------------------


class WatchedStore(Store):
    """Notes how many rows each of its transactions changed."""

    changes: list[int]

    @asynccontextmanager
    async def write(self) -> AsyncIterator[aiosqlite.Connection]:
        async with super().write() as db:
            before = db.total_changes
            yield db
            self.changes.append(db.total_changes - before)


def counts(exit_: ExitUnderTest) -> tuple[int, ...]:
    """Of ended sessions, daily totals and lines."""
    (found,) = exit_.rows(
        "SELECT (SELECT count(*) FROM sessions WHERE state = 'terminated'), (SELECT count(*) FROM usage_days), "
        "(SELECT count(*) FROM invoice_lines)"
    )
    return found


@asynccontextmanager
async def watching(exit_: ExitUnderTest) -> AsyncIterator[WatchedStore]:
    """The exit's store, opened once more, so that only this test's transactions are noted."""
    store = await WatchedStore.open(exit_.path, PATIENCE_S)
    store.changes = []
    yield store
    await store.close()


MANY = 5 * SESSIONS_A_PIECE + 7


@pytest.mark.parametrize("tier", ["free", "paid"])
@on_exit('[pricing]\nkeep = "1d"\n')
async def test_no_transaction_deletes_more_than_a_piece(exit_: ExitUnderTest, tier: str) -> None:
    """However much is due, it goes in pieces, and all of it goes; where nothing is due, no transaction is begun."""
    fill(exit_.path, MANY, tier)
    async with watching(exit_) as store:
        await retention_of(exit_, store).sweep(asyncio.Event())
        assert counts(exit_) == (0, 0, 0)
        assert sum(store.changes) == MANY * (1 if tier == "free" else 2 + DAYS_OF_EACH)
        assert max(store.changes) <= max(SESSIONS_A_PIECE, LINES_A_PIECE * (1 + DAYS_OF_EACH))
        store.changes = []
        await retention_of(exit_, store).sweep(asyncio.Event())
        assert store.changes == []


@on_exit()
async def test_others_write_in_between(exit_: ExitUnderTest) -> None:
    """Who writes all the time gets in after each piece."""
    fill(exit_.path, MANY)
    async with watching(exit_) as store:
        swept = asyncio.create_task(retention_of(exit_, store).sweep(asyncio.Event()))
        while not swept.done():
            async with store.write() as db:
                await db.execute("UPDATE node SET drained = 0")
        await swept
    pieces = [place for place, rows in enumerate(store.changes) if rows > 1]
    assert len(pieces) == 6
    assert all(later - earlier > 1 for earlier, later in pairwise(pieces))


@on_exit()
async def test_a_stop_in_the_middle(exit_: ExitUnderTest) -> None:
    """A stop is seen after the piece that runs; what is left is deleted by the next process."""
    fill(exit_.path, MANY)
    stopping = asyncio.Event()
    async with watching(exit_) as store, asyncio.timeout(60):
        running = asyncio.create_task(retention_of(exit_, store).run(stopping))
        while len(store.changes) < 2:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0)
        stopping.set()
        await running
    left = counts(exit_)[0]
    assert MANY - 3 * SESSIONS_A_PIECE <= left <= MANY - 2 * SESSIONS_A_PIECE
    await exit_.restart()
    await sweep(exit_)
    assert counts(exit_)[0] == 0


@on_exit('[meter]\nretention = "1s"\n')
async def test_a_store_that_cannot_serve(exit_: ExitUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    """While the store is held, one line says that nothing is deleted; afterwards it is, and that is said."""
    caplog.set_level(logging.INFO)
    fill(exit_.path, 3)
    stopping = asyncio.Event()
    failures = "wg_appliance_store_failures_total"
    with exit_.locked():
        running = asyncio.create_task(retention_of(exit_).run(stopping))
        async with asyncio.timeout(60):
            while (exit_.metrics.registry.get_sample_value(failures) or 0) < 2:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.01)
    async with asyncio.timeout(60):
        while counts(exit_)[0]:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)
    stopping.set()
    await running
    said = [record.getMessage() for record in caplog.records if record.name == "appliance.server.retention"]
    assert said == [
        "what is older than its retention is not deleted: store unavailable: database is locked",
        "what is older than its retention is deleted again",
    ]


@on_exit()
async def test_the_file_gives_its_room_back(exit_: ExitUnderTest) -> None:
    """After the rows, their pages go: none is left free in the file, and the file is smaller."""
    with closing(sqlite3.connect(exit_.path)) as db:
        (empty,) = db.execute("PRAGMA page_count").fetchone()
        fill(exit_.path, 3000)
        (before,) = db.execute("PRAGMA page_count").fetchone()
    await sweep(exit_)
    with closing(sqlite3.connect(exit_.path)) as db:
        (after,), (free,) = db.execute("PRAGMA page_count").fetchone(), db.execute("PRAGMA freelist_count").fetchone()
    assert free == 0
    assert (after - empty) * 4 < before - empty
    assert exit_.path.stat().st_size == after * 4096
