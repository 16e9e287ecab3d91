"""Days, months and the lines of an invoice: whatever way a session is divided, its parts add up to it."""

from __future__ import annotations

from calendar import timegm
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from appliance.domain.charges import Amount, Charge, by_day, by_month, charge, day_of, day_start, month_bounds, month_of
from appliance.domain.pricing import Rates, cost
from appliance.domain.windows import MOST

if TYPE_CHECKING:
    from collections.abc import Iterable

DAY = 86_400_000
GIB = 1_073_741_824


def utc(*date: int) -> int:
    """Year, month, day, hour, minute, second; ms since the epoch."""
    return timegm((*date, 0, 0, 0)[:6]) * 1000


# Months --------------------------------------------------------------------------------------------

MONTHS = [
    ("2026-01", (2026, 1), 31),
    ("2026-02", (2026, 2), 28),
    ("2024-02", (2024, 2), 29),
    ("2028-02", (2028, 2), 29),
    ("2000-02", (2000, 2), 29),
    ("2100-02", (2100, 2), 28),
    ("2026-04", (2026, 4), 30),
    ("2026-11", (2026, 11), 30),
    ("2026-12", (2026, 12), 31),
    ("1970-01", (1970, 1), 31),
    ("9999-11", (9999, 11), 30),
]


@pytest.mark.parametrize(("month", "first", "days"), MONTHS, ids=[month[0] for month in MONTHS])
def test_a_month_is_from_midnight_of_its_first_to_the_nexts(month: str, first: tuple[int, int], days: int) -> None:
    """From midnight of the first (UTC) to midnight of the next one's, as many days as the calendar has."""
    start, end = month_bounds(month)
    assert (start, end - start) == (utc(*first, 1), days * DAY)
    assert [month_of(day_of(ms)) == month for ms in (start - 1, start, end - 1, end)] == [False, True, True, False]


def test_the_last_possible_month_has_an_end() -> None:
    """The last month that a date can be of has an end as well."""
    start, end = month_bounds("9999-12")
    assert (start, end - start) == (utc(9999, 12, 1), 31 * DAY)


@pytest.mark.parametrize("month", ["2026-13", "2026-00", "26-1", "2026", "2026-11-24", "0000-01", "", "november"])
def test_a_text_that_is_no_month_is_a_value_error(month: str) -> None:
    """What is no month of the calendar is a ValueError."""
    with pytest.raises(ValueError, match=r"does not match|unconverted|out of range"):
        month_bounds(month)


@pytest.mark.parametrize(
    ("ms", "day"),
    [
        (utc(2026, 11, 24) - 1, "2026-11-23"),
        (utc(2026, 11, 24), "2026-11-24"),
        (utc(2026, 11, 25) - 1, "2026-11-24"),
        (utc(2024, 2, 29, 23, 59, 59) + 999, "2024-02-29"),
        (utc(2100, 2, 28) + DAY, "2100-03-01"),
        (utc(2027, 1, 1) - 1, "2026-12-31"),
    ],
)
def test_a_day_is_from_its_midnight_to_the_nexts(ms: int, day: str) -> None:
    """A day (UTC) is from its midnight up to the next one's."""
    assert day_of(ms) == day
    assert day_start(day) <= ms < day_start(day) + DAY


# Days ----------------------------------------------------------------------------------------------

NOON, MIDNIGHT = utc(2026, 11, 24, 12), utc(2026, 11, 25)
FIRST, SECOND, THIRD = "2026-11-24", "2026-11-25", "2026-11-26"
DIVIDED = [
    ("within a day", 10, NOON, NOON + 10, [(FIRST, 10)]),
    ("at one instant", 10, NOON, NOON, [(FIRST, 10)]),
    ("nothing, at one instant", 0, NOON, NOON, [(FIRST, 0)]),
    ("up to midnight", 10, MIDNIGHT - 10, MIDNIGHT, [(FIRST, 10)]),
    ("1 ms past midnight", 11, MIDNIGHT - 10, MIDNIGHT + 1, [(FIRST, 10), (SECOND, 1)]),
    ("from midnight", 10, MIDNIGHT, MIDNIGHT + 10, [(SECOND, 10)]),
    ("from 1 ms before midnight", 11, MIDNIGHT - 1, MIDNIGHT + 10, [(FIRST, 1), (SECOND, 10)]),
    ("at midnight", 10, MIDNIGHT, MIDNIGHT, [(SECOND, 10)]),
    ("a whole day", 24, MIDNIGHT, MIDNIGHT + DAY, [(SECOND, 24)]),
    ("across a whole day", 36, NOON, MIDNIGHT + DAY, [(FIRST, 12), (SECOND, 24)]),
    ("over three days", 48, NOON, NOON + 2 * DAY, [(FIRST, 12), (SECOND, 24), (THIRD, 12)]),
    ("nothing, over two days", 0, NOON, NOON + DAY, [(FIRST, 0), (SECOND, 0)]),
    ("past 2^53", 4 * (2**60 + 1), NOON, NOON + DAY, [(FIRST, 2 * (2**60 + 1)), (SECOND, 2 * (2**60 + 1))]),
]


@pytest.mark.parametrize(("moved", "start", "end", "parts"), [d[1:] for d in DIVIDED], ids=[d[0] for d in DIVIDED])
def test_each_day_gets_its_share(moved: int, start: int, end: int, parts: list[tuple[str, int]]) -> None:
    """Each day gets its share of the time, of what came in and of what went out."""
    amount = Amount(end - start, moved, 2 * moved)
    found = list(by_day(amount, start, end))
    assert [(day, part.bytes_in, part.bytes_out) for day, part in found] == [(d, n, 2 * n) for d, n in parts]
    assert [part.time_ms for _, part in found] == [
        min(end, day_start(day) + DAY) - max(start, day_start(day)) for day, _ in parts
    ]


def test_the_leap_day_has_its_share_in_a_leap_year() -> None:
    """The 29th of February has its share in a leap year, and in another the 1st of March follows the 28th."""
    found = [[day for day, _ in by_day(Amount(), utc(y, 2, 28), utc(y, 3, 2))] for y in (2028, 2100)]
    assert found == [["2028-02-28", "2028-02-29", "2028-03-01"], ["2100-02-28", "2100-03-01"]]


FIGURE = st.integers(0, MOST)
AMOUNT = st.builds(Amount, FIGURE, FIGURE, FIGURE)
INSTANT = st.integers(0, utc(2100, 12, 31))
LASTED = st.integers(0, 70 * DAY)


@given(AMOUNT, INSTANT, LASTED)
def test_days_add_up_to_the_whole(amount: Amount, start: int, lasted: int) -> None:
    """Days follow each other from the first to the last, none gets less than nothing, and their sum is the whole."""
    end = start + lasted
    parts = list(by_day(amount, start, end))
    days = [day for day, _ in parts]
    assert days[0] == day_of(start)
    assert days[-1] == day_of(max(start, end - 1))
    assert all(day_start(after) - day_start(before) == DAY for before, after in pairwise(days))
    assert sum((part for _, part in parts), Amount()) == amount
    for day, part in parts:
        inside = min(end, day_start(day) + DAY) - max(start, day_start(day))
        for whole, share in zip(astuple(amount), astuple(part), strict=True):
            assert share >= 0
            assert lasted == 0 or abs(share * lasted - whole * inside) < lasted, "more than one off its exact share"


# Lines ---------------------------------------------------------------------------------------------

# From half a minute before December to half a minute after it: 30, 2678400 and 30 seconds, a byte a second each way.
OVER_DECEMBER = Amount(2_678_460_000, 2_678_460, 2_678_460)
START, END = utc(2026, 11, 30, 23, 59, 30), utc(2027, 1, 1, 0, 0, 30)
PRICES = [
    # At each cut the rounded total, at the end of a line its difference to the one before:
    # 30 s x 1000/60 = 500; 2678430 s = 44640500; 2678460 s = 44641000. A millicent a byte.
    ("whole", Rates("eur", 1000, GIB), [(500, 60), (44_640_000, 5_356_800), (500, 60)]),
    # 30 x 7/60 = 3.5; 2678430 x 7/60 = 312483.5; 2678460 x 7/60 = 312487. A third of a millicent a byte, and a bit:
    # 60, 5356860 and 5356920 bytes x 357913942/2^30 = 20.00; 1785620.003; 1785640.003.
    ("rounded", Rates("eur", 7, 357_913_942), [(3, 20), (312_480, 1_785_600), (4, 20)]),
    # 30 x 1/60 = 0.5; 44640.5; 44641. 60 x 1000/2^30 = 0.00006; 4.98897; 4.98903.
    ("next to nothing", Rates("eur", 1, 1000), [(0, 0), (44_640, 4), (1, 0)]),
]


@pytest.mark.parametrize(("rates", "costs"), [each[1:] for each in PRICES], ids=[each[0] for each in PRICES])
def test_over_three_months(rates: Rates, costs: list[tuple[int, int]]) -> None:
    """A session that spans December has three lines; seconds, bytes and both legs add up to its whole."""
    lines = list(by_month(rates, by_day(OVER_DECEMBER, START, END), Amount()))
    parts = [("2026-11", 30), ("2026-12", 2_678_400), ("2027-01", 30)]
    assert lines == [(month, Charge(n, n, n, *legs)) for (month, n), legs in zip(parts, costs, strict=True)]
    assert added(line for _, line in lines) == charge(rates, Amount(), OVER_DECEMBER)


def test_over_a_leap_february() -> None:
    """From January to March of 2024: February's line has its 29 days."""
    start, end = utc(2024, 1, 31, 23), utc(2024, 3, 1, 1)
    lines = dict(by_month(None, by_day(Amount(end - start), start, end), Amount()))
    assert {month: line.seconds for month, line in lines.items()} == {
        "2024-01": 3600,
        "2024-02": 29 * 86_400,
        "2024-03": 3600,
    }


def test_an_empty_span_has_no_lines() -> None:
    """What has no days has no lines."""
    assert list(by_month(None, [], Amount(5, 5, 5))) == []


def test_a_new_session_has_an_empty_line() -> None:
    """A session's first moment, in which nothing moved, is a line of zeroes."""
    rates = Rates("eur", 1000, 1000)
    assert list(by_month(rates, by_day(Amount(), START, START), Amount())) == [("2026-11", Charge(0, 0, 0, 0, 0))]


def added(charges: Iterable[Charge]) -> Charge:
    """The sum of each figure."""
    return Charge(*(sum(figures) for figures in zip(*map(astuple, charges), strict=True)))


RATES = st.builds(Rates, st.just("eur"), FIGURE, FIGURE)


@given(RATES, st.lists(st.tuples(*[st.integers(0, 2**61)] * 3), min_size=1, max_size=12))
def test_charges_add_up(rates: Rates, steps: list[tuple[int, int, int]]) -> None:
    """However a session is cut, none of its charges is less than nothing and their sum is the charge of the whole."""
    totals = [Amount()]
    for step in steps:
        totals.append(totals[-1] + Amount(*step))
    charges = [charge(rates, before, after) for before, after in pairwise(totals)]
    assert all(figure >= 0 for c in charges for figure in astuple(c))
    whole = totals[-1]
    price = cost(rates, whole.time_ms // 1000, whole.bytes_in + whole.bytes_out)
    assert added(charges) == Charge(whole.time_ms // 1000, whole.bytes_in, whole.bytes_out, price.time, price.bytes)


@given(RATES, AMOUNT, INSTANT, st.lists(LASTED, min_size=1, max_size=5))
def test_months_add_up_to_what_moved(rates: Rates, before: Amount, start: int, pauses: list[int]) -> None:
    """Readings of a session, each divided over days and months: all lines together are what moved since."""
    total, lines = before, list[Charge]()
    for lasted in pauses:
        moved = Amount(lasted, lasted * 7 // 3, lasted // 2)
        lines += [line for _, line in by_month(rates, by_day(moved, start, start + lasted), total)]
        start, total = start + lasted, total + moved
    assert all(figure >= 0 for line in lines for figure in astuple(line))
    assert added(lines) == charge(rates, before, total)
