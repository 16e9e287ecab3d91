"""wg-appliance invoice: its formats, and whose invoice of which month."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest

from appliance.domain.pricing import Rates
from tests.support.cli.books import ACROSS, GIB, RUNNING, SHORT, TEXT, Books, november

if TYPE_CHECKING:
    from tests.support.cli.command_line import CommandLine


@pytest.fixture
def books(wga: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Books:
    return november(wga, monkeypatch)


# The three formats ---------------------------------------------------------------------------------


def test_text_has_a_line_a_session_and_a_total(books: Books) -> None:
    """A line a session in the order in which they started, a total, and what is to be paid."""
    done = books.invoice()
    assert (done.status, done.err) == (0, "")
    assert done.out == TEXT


def line(session: str, start: str, end: str | None, figures: tuple[int, ...]) -> dict[str, Any]:
    names = ("seconds", "bytes_in", "bytes_out", "bytes", "time_millicents", "bytes_millicents")
    return {"id": session, "start": start, "end": end} | dict(zip(names, figures, strict=True)) | {"currency": "eur"}


NOVEMBER = [
    line(SHORT, "2026-11-24T10:00:00Z", "2026-11-24T10:01:01Z", (61, 1, 0, 1, 1016, 0)),
    line(RUNNING, "2026-11-30T12:00:00Z", None, (0, 0, 0, 0, 0, 0)),
    line(ACROSS, "2026-11-30T23:49:30Z", "2026-12-01T00:00:00Z", (630, GIB, GIB // 2, 3 * GIB // 2, 10_500, 7500)),
]
TOTAL = {
    "currency": "eur",
    "seconds": 691,
    "bytes": 3 * GIB // 2 + 1,
    "time_millicents": 11_516,
    "bytes_millicents": 7500,
    "millicents": 19_016,
}


@pytest.mark.parametrize("arguments", [("--format", "json"), ("--json",)], ids=" ".join)
def test_json_has_every_figure(books: Books, arguments: tuple[str, ...]) -> None:
    """Every figure of every line and the totals, money in integers; null for what has not ended."""
    done = books.invoice(*arguments)
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out, parse_float=pytest.fail) == {
        "account": "ada",
        "account_id": books.account_id("ada"),
        "month": "2026-11",
        "lines": NOVEMBER,
        "totals": [TOTAL],
    }


def test_csv_has_a_record_a_session(books: Books) -> None:
    """A heading and a record a session, nothing else: what reads it adds up by itself, to the total."""
    done = books.invoice("--format", "csv")
    assert (done.status, done.err, done.out[-1]) == (0, "", "\n")
    heading, *records = csv.reader(done.out.splitlines(), strict=True)
    assert heading == list(NOVEMBER[0])
    assert records == [["" if cell is None else str(cell) for cell in each.values()] for each in NOVEMBER]


def test_the_months_of_a_session_add_up(books: Books) -> None:
    """Each month has its part of the 21 minutes; together they cost what 21 minutes do, 21,000 millicents."""
    december = json.loads(books.invoice("--json", month="2026-12").out)
    assert december["lines"] == [
        line(ACROSS, "2026-12-01T00:00:00Z", "2026-12-01T00:10:30Z", (630, GIB, GIB // 2, 3 * GIB // 2, 10_500, 7500))
    ]
    parts = [NOVEMBER[2], *december["lines"]]
    assert sum(part["time_millicents"] for part in parts) == 21_000
    assert sum(part["bytes_millicents"] for part in parts) == 3 * 5000


def test_large_figures_are_exact_in_all_formats(books: Books) -> None:
    """Bytes and money past 2^53 stand to the last digit in all formats."""
    large = books.session("2027-01-01T00:00:00Z", Rates("eur", 0, GIB))
    books.count(large, "2027-01-01T00:00:00Z", "2027-01-01T00:00:10Z", received=2**60 + 1)
    (found,) = json.loads(books.invoice("--json", month="2027-01").out)["lines"]
    assert (found["bytes"], found["bytes_millicents"]) == (1_152_921_504_606_846_977, 1_152_921_504_606_846_977)
    (record,) = csv.DictReader(books.invoice("--format", "csv", month="2027-01").out.splitlines())
    assert record["bytes"] == record["bytes_millicents"] == "1152921504606846977"
    assert "to pay: 11529215046068.46977 eur\n" in books.invoice(month="2027-01").out


def test_currencies_are_never_added_up(books: Books) -> None:
    """What was agreed in different currencies is never added up: a total each."""
    other = books.session("2026-11-29T00:00:00Z", Rates("usd", 600, 0))
    books.count(other, "2026-11-29T00:00:00Z", "2026-11-29T00:10:00Z")
    found = json.loads(books.invoice("--json").out)["totals"]
    dollars = {"currency": "usd", "seconds": 600, "bytes": 0, "time_millicents": 6000, "bytes_millicents": 0}
    assert found == [TOTAL, dollars | {"millicents": 6000}]
    assert books.invoice().out.splitlines()[-2:] == ["to pay: 0.19016 eur", "to pay: 0.06000 usd"]


def test_no_price_is_no_cost(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a configured price a line has no cost, which is not one of 0, and nothing is to be paid for it.

    Its columns are left out before a terminal cuts a time.
    """
    other = books.session("2027-01-01T00:00:00Z", None)
    books.count(other, "2027-01-01T00:00:00Z", "2027-01-01T00:01:00Z", received=5)
    (found,) = json.loads(books.invoice("--json", month="2027-01").out)["lines"]
    assert [found[name] for name in ("seconds", "bytes", "time_millicents", "bytes_millicents", "currency")] == [
        *(60, 5),
        *(None, None, None),
    ]
    (record,) = csv.DictReader(books.invoice("--format", "csv", month="2027-01").out.splitlines())
    assert (record["time_millicents"], record["currency"]) == ("", "")
    text = books.invoice(month="2027-01").out
    assert "to pay" not in text
    assert [line.split()[-5:] for line in text.splitlines()[1:3]] == [["60", "5", "-", "-", "-"]] * 2
    monkeypatch.setattr("appliance.cli.output._width", lambda: 60)
    text = books.invoice(month="2027-01").out
    assert text.split()[:5] == ["SESSION", "START", "END", "SECONDS", "BYTES"]
    assert text.splitlines()[1].endswith("  2027-01-01T00:00:00Z  running  60       5")
    (total,) = json.loads(books.invoice("--json", month="2027-01").out)["totals"]
    assert [total[name] for name in ("time_millicents", "bytes_millicents", "millicents")] == [None] * 3


def test_two_formats_are_a_usage_error(books: Books) -> None:
    """--json beside another format is a mistake in the command line."""
    refused = books.invoice("--json", "--format", "csv")
    assert (refused.status, refused.out) == (2, "")
    assert "--json and --format csv exclude each other" in refused.err


# Who and when --------------------------------------------------------------------------------------

HEADING = "id,start,end,seconds,bytes_in,bytes_out,bytes,time_millicents,bytes_millicents,currency\n"
EMPTY = [
    ((), "", "no paid sessions in MONTH\n"),
    (("--format", "csv"), HEADING, ""),
    (("--verify",), "", "verified: 0 lines agree with the daily totals\nno paid sessions in MONTH\n"),
]


@pytest.mark.parametrize(("arguments", "out", "err"), EMPTY, ids=["text", "csv", "verified"])
@pytest.mark.parametrize("month", ["2026-10", "2027-01", "0001-01", "9999-12"])
def test_an_empty_month_has_no_lines(books: Books, month: str, arguments: tuple[str, ...], out: str, err: str) -> None:
    """A month without sessions, past or future, has no lines: status 0, the heading alone in CSV, a remark else."""
    done = books.invoice(*arguments, month=month)
    assert (done.status, done.out, done.err) == (0, out, err.replace("MONTH", month))


def test_empty_month_as_json(books: Books) -> None:
    """The same document with nothing in it."""
    done = books.invoice("--json", month="2026-10")
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out) == {
        "account": "ada",
        "account_id": books.account_id("ada"),
        "month": "2026-10",
        "lines": [],
        "totals": [],
    }


@pytest.mark.parametrize("tier", ["free", "anonymous"])
def test_a_tier_that_does_not_pay(books: Books, tier: str) -> None:
    """Its sessions stand on no invoice; one that was paid keeps its lines, whatever tier the account is of now."""
    books.wga.do("account", "create", "bob", "--tier", tier)
    books.wga.open_session("bob", 99)
    done = books.wga("invoice", "bob", "--month", "2026-09")
    assert (done.status, done.out, done.err) == (0, "", "no paid sessions in 2026-09\n")
    books.wga.do("account", "set", "ada", "--tier", tier)
    assert books.invoice().out == TEXT


def test_each_account_has_its_own_invoice(books: Books) -> None:
    """Each account has its own sessions on its invoice."""
    books.wga.do("account", "create", "bob", "--tier", "paid")
    theirs = books.session("2026-11-25T00:00:00Z", account="bob")
    found = books.wga.json("invoice", "bob", "--month", "2026-11")
    assert [each["id"] for each in found["lines"]] == [theirs]
    assert books.invoice().out == TEXT


def test_a_deleted_account_can_still_be_invoiced(books: Books) -> None:
    """What it owes can still be shown."""
    books.wga.do("account", "delete", "ada")
    assert books.invoice("--verify").out == TEXT


def test_a_name_used_again(books: Books) -> None:
    """What a deleted account owes is shown under its name as long as no other one of that name owes anything for the
    month; then each is asked for by its id."""
    old = books.account_id("ada")
    books.wga.do("account", "delete", "ada")
    books.wga.do("account", "create", "ada", "--tier", "paid")
    new = books.account_id("ada")
    assert books.invoice("--verify").out == TEXT
    books.session("2026-11-25T00:00:00Z", account="ada")
    refused = books.invoice()
    assert (refused.status, refused.out) == (1, "")
    assert f"name one by its id: {new}, {old}" in refused.err
    assert books.wga("invoice", old, "--month", "2026-11", "--verify").out == TEXT
    assert len(books.wga.json("invoice", new, "--month", "2026-11")["lines"]) == 1


@pytest.mark.parametrize("name", ["nobody", "Ada"])
def test_an_unknown_account_is_named(books: Books, name: str) -> None:
    """Status 1 and one line that names it and where to look."""
    refused = books.wga("invoice", name, "--month", "2026-11")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err == f"wg-appliance: error: no account {name}; wg-appliance account list shows them\n"


BAD_MONTHS = ["2026-13", "2026-00", "26-1", "26-11", "2026-1", "0000-01", "2026", "2026-11-24", "2026/11", "202611"]
BAD_MONTHS += ["11-2026", " 2026-11", "2026-11 ", "2026-1 ", "+026-11", "-2026-1", "２０２６-１１", "november", ""]  # noqa: RUF001


@pytest.mark.parametrize("month", BAD_MONTHS)
def test_a_bad_month_is_refused_with_an_example(books: Books, month: str) -> None:
    """Status 2, what was given and what a month looks like."""
    refused = books.invoice(month=month)
    assert (refused.status, refused.out) == (2, "")
    assert f"{json.dumps(month)}: must be a year and a month, as in 2026-11\n" in refused.err


MISTYPED = [
    ([], "Missing argument 'NAME|ID'"),
    (["ada"], "Missing option '--month'"),
    (["ada", "2026-11"], "Missing option '--month'"),
    (["ada", "--month"], "Option '--month' requires an argument"),
    (["ada", "--mont", "2026-11"], "No such option '--mont'"),
    (["ada", "--month", "2026-11", "bob"], "unexpected extra argument (bob)"),
    (["ada", "--month", "2026-11", "--format", "xml"], "'xml' is not one of 'text', 'csv', 'json'"),
    (["ada", "--month", "2026-11", "--verfiy"], "Did you mean '--verify'?"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTYPED, ids=[" ".join(each[0]) or "none" for each in MISTYPED])
def test_a_mistyped_option_is_named(books: Books, arguments: list[str], message: str) -> None:
    """Status 2 and what was not understood."""
    refused = books.wga("invoice", *arguments)
    assert (refused.status, refused.out, message in refused.err) == (2, "", True), refused.err
