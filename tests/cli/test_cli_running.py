"""Invoices of sessions that run: up to now, whether or not a server has counted it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from appliance.domain.clock import HostClock, Moment
from appliance.store.queries import node as node_row
from tests.support.cli.books import Books, count, ms

if TYPE_CHECKING:
    import aiosqlite

    from tests.support.cli.command_line import CommandLine

EVENING, NIGHT = "2026-11-30T20:00:00Z", "2026-12-01T02:00:00Z"
HOUR_MS = 3_600_000


@pytest.fixture
def books(wga: CommandLine) -> Books:
    """ada, who pays."""
    wga.do("account", "create", "ada", "--tier", "paid")
    return Books(wga)


def at(monkeypatch: pytest.MonkeyPatch, instant: str, since: str = EVENING, boot: str = "boot") -> Moment:
    """The host's clocks; the boot clock was 0 at `since`."""
    now = Moment(ms(instant), ms(instant) - ms(since), boot)
    monkeypatch.setattr(HostClock, "now", lambda _: now)
    return now


def beat(books: Books, instant: str, since: str = EVENING) -> None:
    """When the server was last known to be up."""

    async def write(db: aiosqlite.Connection) -> None:
        await node_row.write_heartbeat(db, Moment(ms(instant), ms(instant) - ms(since), "boot"))

    books.wga.write(write)


def lines(books: Books, month: str) -> list[tuple[Any, ...]]:
    """Start, end and seconds of each; they agree with the days, and so do the totals."""
    books.invoice("--verify", month=month)
    shown = books.wga.json("invoice", "ada", "--month", month, "--verify")
    assert sum(line["seconds"] for line in shown["lines"]) == sum(total["seconds"] for total in shown["totals"])
    return [(line["start"], line["end"], line["seconds"]) for line in shown["lines"]]


def test_a_month_ends_without_a_count(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the end of a month: the past month's line is final, the new one runs, and nothing had to be written."""
    at(monkeypatch, EVENING)
    books.session(EVENING)
    beat(books, "2026-12-01T01:59:55Z")
    at(monkeypatch, NIGHT)
    before = lines(books, "2026-11"), lines(books, "2026-12")
    assert before == ([(EVENING, "2026-12-01T00:00:00Z", 4 * 3600)], [("2026-12-01T00:00:00Z", None, 2 * 3600)])
    counted = "2026-12-01T01:00:00Z"

    async def written(db: aiosqlite.Connection) -> None:
        (row,) = await db.execute_fetchall("SELECT id FROM sessions")
        await count(db, row[0], EVENING, counted, 0, 0)
        await db.execute("UPDATE peers SET counted_until_ms = ?", (5 * HOUR_MS,))

    books.wga.write(written)
    assert (lines(books, "2026-11"), lines(books, "2026-12")) == before


def test_until_the_tunnel_carries_no_longer(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose client was switched off stands on the line of the month in which its tunnel could carry, and on
    no later one; one that never had a handshake has a line of nothing."""
    at(monkeypatch, EVENING)
    books.session(EVENING, carries_until_ms=2 * HOUR_MS + 180_000)
    books.session(EVENING, carries_until_ms=0)
    beat(books, "2026-12-01T01:59:55Z")
    at(monkeypatch, NIGHT)
    midnight = "2026-12-01T00:00:00Z"
    assert lines(books, "2026-11") == [(EVENING, midnight, 2 * 3600 + 180), (EVENING, midnight, 0)]
    assert lines(books, "2026-12") == []


def test_up_to_the_heartbeat_of_another_boot(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a reboot, while no server runs: what it will bill, which is up to the last heartbeat."""
    at(monkeypatch, EVENING)
    books.session(EVENING)
    beat(books, "2026-11-30T21:00:00Z")
    at(monkeypatch, NIGHT, since="2026-12-01T01:00:00Z", boot="another")
    assert lines(books, "2026-11") == [(EVENING, "2026-12-01T00:00:00Z", 3600)]
    assert lines(books, "2026-12") == []


@pytest.mark.parametrize(("hours", "expected"), [(2, [2 * 3600, 3 * 3600]), (-2, [5 * 3600])])
def test_a_clock_set_since_the_heartbeat(
    books: Books, monkeypatch: pytest.MonkeyPatch, hours: int, expected: list[int]
) -> None:
    """What passed before the clock was set keeps its day and month: it ran from 20:00 to 22:00 by the clock then, and
    for three hours since, at the end of which it is 01:00 by the clock now, or 23:00."""
    monkeypatch.setattr(HostClock, "synchronised", lambda _: True)
    at(monkeypatch, EVENING)
    books.session(EVENING)
    beat(books, "2026-11-30T22:00:00Z")
    end = {2: "2026-12-01T03:00:00Z", -2: "2026-11-30T23:00:00Z"}[hours]
    now = Moment(ms(end), 5 * HOUR_MS, "boot")
    monkeypatch.setattr(HostClock, "now", lambda _: now)
    found = lines(books, "2026-11") + lines(books, "2026-12")
    assert [line[2] for line in found] == expected


def test_what_has_ended_or_is_free_does_not_run(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that is terminated or of another tier has no running part."""
    at(monkeypatch, EVENING)
    books.wga.do("account", "create", "bob")
    books.wga.open_session("bob", 9)
    at(monkeypatch, NIGHT)
    assert lines(books, "2026-12") == []
    assert books.wga.json("invoice", "bob", "--month", "2026-12")["lines"] == []


@pytest.mark.parametrize("ends", [None, "2026-12-01T01:00:00Z"])
def test_a_month_in_which_it_never_carried(books: Books, monkeypatch: pytest.MonkeyPatch, ends: str | None) -> None:
    """The tunnel carried for an hour, and the session went on over the end of the month: the line ends with its month,
    and the next month has none."""
    at(monkeypatch, EVENING)
    session = books.session(EVENING)

    async def carry(db: aiosqlite.Connection) -> None:
        await db.execute("UPDATE peers SET carries_until_ms = ?", (HOUR_MS,))

    books.wga.write(carry)
    beat(books, "2026-12-01T01:59:55Z")
    at(monkeypatch, "2026-11-30T22:00:00Z")
    assert lines(books, "2026-11") == [(EVENING, None, 3600)]
    at(monkeypatch, NIGHT)
    if ends is not None:
        books.count(session, EVENING, "2026-11-30T21:00:00Z")
        books.end(session, ends)
    assert lines(books, "2026-11") == [(EVENING, "2026-12-01T00:00:00Z", 3600)]
    assert lines(books, "2026-12") == []
