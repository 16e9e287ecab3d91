"""wg-appliance invoice in a fleet: on the hub of all exits, and whether it is complete; on a spoke not at all."""

from __future__ import annotations

import csv
import json
import sqlite3
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from appliance.cli import fleet_verifying
from appliance.domain.clock import HostClock, Moment
from tests.support.cli.books import ACROSS, RUNNING, SHORT, Books, ms, november

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cli.command_line import CommandLine

THERE = "ses_00000000000000000000beef"


@pytest.fixture
def books(wga: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Books:
    """Of the hub fra1, which ams1 has told of one session, and osl1, which has left."""
    books = november(wga, monkeypatch)
    with closing(sqlite3.connect(wga.state.store)) as db, db:
        db.execute("INSERT INTO fleet (only_row, role, node_id, gen) VALUES (1, 'hub', 'nod_1', 1)")
        db.executemany(
            "INSERT INTO fleet_members VALUES (?, ?, ?, ?, ?, zeroblob(32), 1, ?, '', 0)",
            [
                ("nod_1", "fra1", "fra", "hub", "U1", None),
                ("nod_2", "ams1", "ams", "spoke", "U2", None),
                ("nod_3", "osl1", "osl", "spoke", "U3", 5),
            ],
        )
        db.execute(
            """
            INSERT INTO fleet_lines (session_id, node, account_id, month, started_at, ended_at, seconds, bytes_in,
                bytes_out, currency, millicents_per_minute, millicents_per_gib, time_millicents, bytes_millicents)
            SELECT ?, 'nod_2', id, '2026-11', ?, NULL, 60, 7, 8, 'eur', 1000, 5000, 1000, 0 FROM accounts
            """,
            (THERE, ms("2026-11-30T23:59:00Z")),
        )
        report(db, "nod_1", "2026-12-01T00:00:00Z")
        report(db, "nod_2", "2026-11-30T14:02:40Z")
    return books


def report(db: sqlite3.Connection, node: str, upto: str) -> None:
    db.execute("INSERT OR REPLACE INTO fleet_nodes (node, upto) VALUES (?, ?)", (node, ms(upto)))


def at(monkeypatch: pytest.MonkeyPatch, instant: str) -> None:
    monkeypatch.setattr(HostClock, "now", lambda _: Moment(ms(instant), 0, "another"))


def test_text_names_the_exits_and_who_is_awaited(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line its exit, one total; then whether there may be more to come."""
    at(monkeypatch, "2026-12-01T09:00:00Z")
    done = books.invoice()
    assert (done.status, done.err) == (0, "")
    heading, *rows = done.out.splitlines()
    assert heading.split()[-2:] == ["EXIT", "REGION"]
    assert [(row.split()[0], row.split()[-2:]) for row in rows[:4]] == [
        (SHORT, ["fra1", "fra"]),
        (RUNNING, ["fra1", "fra"]),
        (ACROSS, ["fra1", "fra"]),
        (THERE, ["ams1", "ams"]),
    ]
    assert rows[4].split()[:3] == ["total", "751", "1610612752"]
    assert rows[-2:] == ["to pay: 0.20016 eur", "provisional: ams1 last reported 2026-11-30 14:02"]
    with closing(sqlite3.connect(books.wga.state.store)) as db, db:
        db.execute("DELETE FROM fleet_nodes WHERE node = 'nod_2'")
    assert books.invoice().out.splitlines()[-1] == "provisional: ams1 has not reported yet"
    at(monkeypatch, "2026-11-30T23:59:59Z")
    assert books.invoice().out.splitlines()[-1] == "provisional: 2026-11 is not over"


def test_json_and_csv_say_the_same(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON in members of its own; CSV in two more columns, and a remark beside it."""
    at(monkeypatch, "2026-12-01T09:00:00Z")
    found = json.loads(books.invoice("--json").out)
    assert [(line["id"], line["exit"], line["region"]) for line in found["lines"]][-1] == (THERE, "ams1", "ams")
    assert found["totals"][0]["millicents"] == sum(
        line["time_millicents"] + line["bytes_millicents"] for line in found["lines"]
    )
    awaited = [{"exit": "ams1", "region": "ams", "reported_until": "2026-11-30T14:02:40Z"}]
    assert (found["complete"], found["provisional"]) == (False, awaited)
    done = books.invoice("--format", "csv")
    heading, *records = csv.reader(done.out.splitlines(), strict=True)
    assert heading[-2:] == ["exit", "region"]
    assert [(each[0], *each[-2:]) for each in records][-1] == (THERE, "ams1", "ams")
    assert done.err == "provisional: ams1 last reported 2026-11-30 14:02\n"


def test_final_fails_until_it_is_complete(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says for what it waits; then the invoice, complete. An exit that has left is not awaited."""
    refused = books.invoice("--final")
    assert (refused.status, refused.out) == (1, "")
    assert "the invoice is provisional: 2026-11 is not over" in refused.err
    at(monkeypatch, "2026-12-01T09:00:00Z")
    refused = books.invoice("--final")
    assert (refused.status, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert "provisional: ams1 last reported 2026-11-30 14:02" in refused.err
    with closing(sqlite3.connect(books.wga.state.store)) as db, db:
        report(db, "nod_2", "2026-12-01T00:00:00Z")
    done = books.invoice("--final")
    assert (done.status, done.out.splitlines()[-1]) == (0, "complete")
    assert json.loads(books.invoice("--final", "--json").out)["complete"] is True


def test_a_single_hosts_is_final_once_the_month_is_over(wga: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it is as without the option."""
    books = november(wga, monkeypatch)
    assert books.invoice("--final").status == 1
    at(monkeypatch, "2026-12-01T00:00:00Z")
    assert books.invoice("--final").out == books.invoice().out


def test_a_spoke_says_where_invoices_are_made(books: Books) -> None:
    """Its own lines alone would look like all there is."""
    with closing(sqlite3.connect(books.wga.state.store)) as db, db:
        db.execute("UPDATE fleet SET role = 'spoke', node_id = 'nod_2'")
    refused = books.invoice()
    assert (refused.status, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert "invoices are made on fra1" in refused.err


def test_usage_on_the_hub_is_of_all_exits(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other exits have reported of windows that are open is added; of one that is over, nothing."""
    at(monkeypatch, "2026-12-01T09:00:00Z")
    before = json.loads(books.wga("usage", "ada", "--json").out)
    with closing(sqlite3.connect(books.wga.state.store)) as db, db:
        db.executemany(
            "INSERT INTO fleet_windows SELECT id, ?, 1, ?, ?, ?, ? FROM accounts",
            [
                ("nod_2", ms("2026-12-01T08:00:00Z"), 500, ms("2026-12-01T08:30:00Z"), 9000),
                ("nod_3", ms("2026-01-01T08:00:00Z"), 77, None, 0),
            ],
        )
    after = json.loads(books.wga("usage", "ada", "--json").out)
    assert after["bytes_used"] - before["bytes_used"] == 500
    assert after["session_seconds"] - before["session_seconds"] == 9


# --verify ------------------------------------------------------------------------------------------


@contextmanager
def answering(books: Books, answer: str | None) -> Iterator[list[bytes]]:
    """What a running server does for it: has ams1 asked, which has found no difference if `answer` is None."""
    stop, asked = threading.Event(), list[bytes]()

    def carry_out() -> None:
        with closing(sqlite3.connect(books.wga.state.store, isolation_level=None, timeout=60)) as store:
            while not stop.wait(0.02):
                found = store.execute("SELECT number, request FROM fleet_intents WHERE operation = 'verify'").fetchall()
                for number, request in found:
                    asked.append(request)
                    if answer is None:
                        store.execute("DELETE FROM fleet_intents WHERE number = ?", (number,))
                    else:
                        words = f"{number} {answer}".encode()
                        store.execute(
                            "UPDATE fleet_intents SET operation = 'refused', request = ? WHERE number = ?",
                            (words, number),
                        )

    with books.wga.state.serving():
        thread = threading.Thread(target=carry_out)
        thread.start()
        try:
            yield asked
        finally:
            stop.set()
            thread.join()


def waiting(books: Books) -> int:
    with closing(sqlite3.connect(books.wga.state.store)) as db:
        return int(db.execute("SELECT count(*) FROM fleet_intents").fetchone()[0])


def test_verify_has_the_exits_compare_their_lines(books: Books) -> None:
    """Those in the fleet; nothing is left to be asked. It is the same invoice."""
    with closing(sqlite3.connect(books.wga.state.store)) as db, db:
        db.execute("UPDATE fleet_lines SET ended_at = ?", (ms("2026-11-30T23:59:59Z"),))
    with answering(books, None) as asked:
        done = books.invoice("--verify", "--json")
    assert done.status == 0
    assert done.err.splitlines() == [
        "verified: the lines are those of ams1",
        "verified: 3 lines agree with the daily totals here",
    ]
    assert done.out == books.invoice("--json").out
    (request,) = asked
    assert json.loads(request)["lines"] == [[THERE, 60, 7, 8, 1000, 0]]
    assert waiting(books) == 0


def test_verify_fails_where_an_exit_has_other_lines(books: Books) -> None:
    """One line with the exit's words."""
    with answering(books, f"1 line differs from what the hub has: {THERE}"):
        refused = books.invoice("--verify")
    assert (refused.status, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert f"ams1: 1 line differs from what the hub has: {THERE}" in refused.err
    assert waiting(books) == 0


def test_verify_says_who_has_not_compared(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exit that does not answer in time, and all of them while no server runs: such a verification has failed."""
    refused = books.invoice("--verify")
    assert (refused.status, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert "not compared with the exits' own lines: the server is not running" in refused.err
    monkeypatch.setattr(fleet_verifying, "ANSWERED_WITHIN_S", 0.1)
    with books.wga.state.serving():
        done = books.invoice("--verify")
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert "not compared: ams1: no answer" in done.err
    assert waiting(books) == 0


def test_a_session_of_an_exit_that_has_left_is_not_called_running(books: Books) -> None:
    """No end of it will be told; nor can its line be compared, which --verify says."""
    assert "running" in next(row for row in books.invoice().out.splitlines() if row.startswith(THERE))
    with closing(sqlite3.connect(books.wga.state.store)) as db, db:
        db.execute("UPDATE fleet_lines SET node = 'nod_3'")
    with answering(books, None):
        done = books.invoice("--verify")
    assert "  not told  " in next(row for row in done.out.splitlines() if row.startswith(THERE))
    assert (done.status, done.err.splitlines()[0]) == (0, "not compared: osl1: in the fleet no more")
