"""Tables of the command line: as wide as their cells, or as a terminal."""

from __future__ import annotations

import pytest

from appliance.cli import table
from appliance.client.humanize import allowance, brief_span

LINES = [["ID", "NAME", "N"], ["ses_b0897940b5aa508cb4c22562", "a rather long name of an account", "7"]]


def test_without_a_terminal_nothing_is_cut() -> None:
    """Columns are as wide as their widest cell."""
    assert list(table.rows(LINES, None)) == [
        "ID                            NAME                              N",
        "ses_b0897940b5aa508cb4c22562  a rather long name of an account  7",
    ]


def test_what_came_after_measuring_is_not_cut() -> None:
    """A cell wider than its column pushes the line; on a terminal it is cut."""
    headings, widths = ["A", "B"], table.widened((), [["A", "B"], ["1", "2"]])
    assert table.layout(headings, widths, None).line(["abc", "d"]) == "abc  d"
    assert table.layout(headings, widths, 80).line(["abc", "d"]) == "~  d"


@pytest.mark.parametrize("width", [26, 40, 60, 64, 65, 200])
def test_a_table_fits_a_terminal(width: int) -> None:
    """The widest columns are cut, and what is cut says so; what fits is left as it is."""
    lines = list(table.rows(LINES, width))
    assert max(map(len, lines)) <= width
    assert ("~" in lines[1]) == (width < 65)
    assert lines[1].endswith(" 7")


def test_letters_of_two_columns_and_of_none() -> None:
    """East Asian letters take two columns, an accent of its own none."""
    lines = list(table.rows([["NAME", "N"], ["\u6771\u4eac\u90fd", "1"], ["e\u0301a", "2"]], None))
    assert lines == ["NAME    N", "\u6771\u4eac\u90fd  1", "e\u0301a      2"]
    assert list(table.rows([["1", "\u6771\u4eac\u90fd\u6771\u4eac\u90fd"]], 10)) == ["1  \u6771\u4eac\u90fd~"]


@pytest.mark.parametrize(
    ("width", "headings"),
    [(200, "ID NAME N"), (49, "ID NAME N"), (48, "ID NAME"), (46, "ID NAME"), (45, "ID"), (1, "ID")],
)
def test_spare_columns_go_first(width: int, headings: str) -> None:
    """A spare column is left out once the others would be cut for it; the first column, an id, is cut before."""
    lines = list(table.rows(LINES, width, ("N", "NAME")))
    assert lines[0].split() == headings.split()
    assert max(map(len, lines)) <= max(width, 12)
    assert ("rather long" in lines[1]) == ("NAME" in headings)


def test_an_id_is_cut_before_what_is_as_wide() -> None:
    """What is left of it names one; of a time the last digits are missed."""
    lines = [["ID", "EXPIRES"], ["tok_f250b4100671dddd", "2026-12-30T12:34:14Z"]]
    assert list(table.rows(lines, 35))[1] == "tok_f250b410~  2026-12-30T12:34:14Z"


WHAT = "Docker drops what clients send or receive"
MEND = "iptables -I DOCKER-USER -i wga0 -j ACCEPT"


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (None, [f"failed  forward  {WHAT} -> {MEND}"]),
        (200, [f"failed  forward  {WHAT} -> {MEND}"]),
        (50, ["failed  forward  Docker drops what clients send or", f"{'':17}receive", f"{'':17}-> {MEND}"]),
        (30, [f"failed  forward  {WHAT} -> {MEND}"]),
    ],
)
def test_a_result_beside_its_name(width: int | None, shown: list[str]) -> None:
    """On a terminal too narrow for it, the text is broken between words and the command has its own line; on one too
    narrow for that, and into a pipe, all is one line."""
    assert list(table.hanging("failed  forward  ", WHAT, MEND, width)) == shown


def test_a_result_without_words() -> None:
    """Its name stands, and what mends it below."""
    assert list(table.hanging("failed  api  ", "", "x" * 60, 60)) == ["failed  api  ", f"{'':13}-> {'x' * 60}"]


def test_no_width_holds_a_table_up() -> None:
    """Where not even the narrowest columns fit, they are as narrow as they get."""
    assert table.fitted([40, 3, 40], 1) == [12, 3, 5]


def test_an_id_stays_one() -> None:
    """What is left of the first column, which is an id, is enough to name it, beside wide columns too."""
    assert table.fitted([28, 12, 20, 24, 39], 60) == [12, 12, 12, 12, 12]
    assert table.fitted([28, 30, 30, 30, 39], 40)[0] == 12


@pytest.mark.parametrize(
    ("used", "limit", "left", "said"),
    [
        (300, 7200, 23 * 3600 + 59, "5m of 2h, resets in 23 h"),
        (0, 7200, 59, "0s of 2h, resets in 59 s"),
        (7140, 7200, 6 * 86400, "1h 59m of 2h, resets in 6 d"),
        (125, 0, 0, "unmetered"),
    ],
)
def test_a_window_in_words(used: int, limit: int, left: int, said: str) -> None:
    """What is used of what, and when it resets."""
    assert allowance(brief_span(used), brief_span(limit) if limit else None, left) == said
