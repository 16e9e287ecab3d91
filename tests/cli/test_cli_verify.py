"""wg-appliance invoice --verify: whether the lines agree with the daily totals."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from appliance.store.database import Store
from appliance.store.queries import invoices
from tests.support.cli.books import ACROSS, GIB, RUNNING, SHORT, TEXT, Books, count, ms, november

if TYPE_CHECKING:
    import aiosqlite

    from tests.support.cli.command_line import CommandLine


@pytest.fixture
def books(wga: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Books:
    return november(wga, monkeypatch)


@pytest.mark.parametrize("shape", ["text", "csv", "json"])
def test_an_invoice_that_agrees_is_the_same(books: Books, shape: str) -> None:
    """Where all agrees, a remark says so and the result is the same as without."""
    plain, verified = books.invoice("--format", shape), books.invoice("--format", shape, "--verify")
    assert (verified.status, verified.out) == (0, plain.out)
    assert verified.err == "verified: 3 lines agree with the daily totals\n"


ALTERED = {
    "seconds": "UPDATE invoice_lines SET seconds = seconds - 1 WHERE session_id = :id AND month = '2026-11'",
    "bytes in": "UPDATE invoice_lines SET bytes_in = bytes_in + 1 WHERE session_id = :id AND month = '2026-11'",
    "bytes out": "UPDATE invoice_lines SET bytes_out = bytes_out - 1 WHERE session_id = :id AND month = '2026-11'",
    "cost of time": "UPDATE invoice_lines SET time_millicents = 10501 WHERE session_id = :id AND month = '2026-11'",
    "cost of bytes": "UPDATE invoice_lines SET bytes_millicents = 7499 WHERE session_id = :id AND month = '2026-11'",
    "no cost": "UPDATE invoice_lines SET time_millicents = NULL WHERE session_id = :id AND month = '2026-11'",
    "rate": "UPDATE invoice_lines SET millicents_per_minute = 999 WHERE session_id = :id AND month = '2026-11'",
    "no line": "DELETE FROM invoice_lines WHERE session_id = :id AND month = '2026-11'",
    "another month's line": "UPDATE invoice_lines SET month = '2026-10' WHERE session_id = :id AND month = '2026-11'",
    "a day's time": "UPDATE usage_days SET counted_ms = counted_ms - 1 WHERE session_id = :id AND day = '2026-11-30'",
    "a day's bytes in": "UPDATE usage_days SET bytes_in = bytes_in + 1 WHERE session_id = :id AND day = '2026-11-30'",
    "a day's bytes out": "UPDATE usage_days SET bytes_out = 7 WHERE session_id = :id AND day = '2026-11-30'",
    "no day": "DELETE FROM usage_days WHERE session_id = :id AND day = '2026-11-30'",
    "another month's day": "UPDATE usage_days SET day = '2026-10-31' WHERE session_id = :id AND day = '2026-11-30'",
}


@pytest.mark.parametrize("sql", ALTERED.values(), ids=ALTERED)
def test_an_altered_line_fails_the_invoice(books: Books, sql: str) -> None:
    """A line or a day that was altered by hand: status 1, one line that names the session and no other, no invoice."""
    books.alter(sql, ACROSS)
    refused = books.invoice("--verify")
    assert (refused.status, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert refused.err.startswith("wg-appliance: error: the invoice of ada for 2026-11 does not agree with the days: ")
    assert [refused.err.count(session) for session in (ACROSS, SHORT, RUNNING)] == [1, 0, 0]


def test_all_altered_sessions_are_named(books: Books) -> None:
    """Several sessions that do not agree are named in one line."""
    for session in (ACROSS, SHORT):
        books.alter("UPDATE invoice_lines SET seconds = 7 WHERE session_id = :id AND month = '2026-11'", session)
    books.alter("DELETE FROM invoice_lines WHERE session_id = :id", RUNNING)
    refused = books.invoice("--verify")
    assert (refused.status, refused.err.count("\n")) == (1, 1)
    assert [refused.err.count(session) for session in (ACROSS, SHORT, RUNNING)] == [1, 1, 1]


def test_both_sides_of_the_difference_are_told(books: Books) -> None:
    """Both sides of the difference are told, in the units of the invoice."""
    books.alter("UPDATE invoice_lines SET seconds = 631 WHERE session_id = :id AND month = '2026-11'", ACROSS)
    rest = f"{GIB}+{GIB // 2} B, 10500+7500 millicents"
    assert books.invoice("--verify").err == (
        "wg-appliance: error: the invoice of ada for 2026-11 does not agree with the days: "
        f"{ACROSS}: the line says 631 s, {rest}, its days 630 s, {rest}\n"
    )


def test_lost_after_retention(books: Books) -> None:
    """A line that was deleted after its session had gone is still missed, by everybody it may have been of."""
    books.alter("DELETE FROM sessions WHERE id = :id", SHORT)
    assert books.invoice("--verify").status == 0
    books.alter("DELETE FROM invoice_lines WHERE session_id = :id", SHORT)
    refused = books.invoice("--verify")
    assert refused.status == 1
    assert f"{SHORT} has daily totals in 2026-11 and no line" in refused.err


def test_an_altered_line_fails_its_own_month_alone(books: Books) -> None:
    """What was altered in December is found in December; without --verify nothing is compared."""
    books.alter("UPDATE invoice_lines SET bytes_in = 1 WHERE session_id = :id AND month = '2026-12'", ACROSS)
    assert books.invoice("--verify").status == 0
    assert books.invoice("--verify", month="2026-12").status == 1
    assert books.invoice(month="2026-12").status == 0


def test_counted_meanwhile(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that counts between two of the command's queries: the invoice is that of one moment, and agrees."""
    asked = invoices.sessions_of_month

    async def counted(db: aiosqlite.Connection, account_id: str, month: str) -> list[str]:
        server = await Store.open(books.wga.state.store)
        async with server.write() as writer:
            await count(writer, RUNNING, "2026-11-30T12:00:00Z", "2026-11-30T12:00:10Z", received=5, sent=5)
        await server.close()
        return await asked(db, account_id, month)

    monkeypatch.setattr(invoices, "sessions_of_month", counted)
    verified = books.invoice("--verify")
    assert (verified.status, verified.err) == (0, "verified: 3 lines agree with the daily totals\n")


def test_lines_outlive_their_sessions(books: Books) -> None:
    """Ended sessions go with retention, up to the instant; their lines stay as they are, and are verified as before."""
    ended = ms("2026-12-01T00:10:30Z")
    for before, left in ((ended, {ACROSS, RUNNING}), (ended + 1, {RUNNING})):
        books.forget(before)
        assert {each["id"] for each in books.wga.json("session", "list")["sessions"]} == left
        verified = books.invoice("--verify")
        assert (verified.status, verified.out) == (0, TEXT)
    books.alter("UPDATE usage_days SET bytes_in = 1 WHERE session_id = :id AND day = '2026-11-30'", ACROSS)
    refused = books.invoice("--verify")
    assert (refused.status, ACROSS in refused.err) == (1, True)


def test_lines_and_their_days_go_together(books: Books) -> None:
    """A session's lines go with the daily totals they are verified by, all months at once, when the last one ended;
    those of a session that runs stay. Whatever has gone, what is left is verified."""
    first, last = ms("2026-11-24T10:01:01Z"), ms("2026-12-01T00:10:30Z")
    november_ends = ms("2026-12-01T00:00:00Z")
    steps = {
        first: {SHORT, ACROSS, RUNNING},
        first + 1: {ACROSS, RUNNING},
        november_ends + 1: {ACROSS, RUNNING},
        last: {ACROSS, RUNNING},
        last + 1: {RUNNING},
        last + 10**12: {RUNNING},
    }
    for before, left in steps.items():
        books.discard(before)
        for month, sessions in (("2026-11", left), ("2026-12", left & {ACROSS})):
            verified = books.invoice("--verify", "--json", month=month)
            assert verified.status == 0, (before, verified)
            assert {line["id"] for line in json.loads(verified.out)["lines"]} == sessions
        with closing(sqlite3.connect(books.wga.state.store)) as db:
            days = {session for (session,) in db.execute("SELECT session_id FROM usage_days")}
        assert days == left
    assert {each["id"] for each in books.wga.json("session", "list")["sessions"]} == {SHORT, ACROSS, RUNNING}
