"""Usage windows: when one opens, when it resets, and which use counts into it.

Windows here are 100 s long, instants are ms, and use is told in units of one a ms, so that shares are whole.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.windows import CLOSED, MOST, Window, at, resets_at, spend

LENGTH = 100_000
HOUR = 3_600_000
OPENED = 10 * HOUR  # far from 0, so that a clock can be set back
END = OPENED + LENGTH

MOMENTS = [
    ("as it opens", OPENED, 7, END),
    ("a second before the reset", END - 1000, 7, END),
    ("a millisecond before the reset", END - 1, 7, END),
    ("at the reset", END, 0, END + LENGTH),
    ("a millisecond after the reset", END + 1, 0, END + 1 + LENGTH),
    ("a second after the reset", END + 1000, 0, END + 1000 + LENGTH),
    ("many windows later", END + 50 * LENGTH + 1, 0, END + 51 * LENGTH + 1),
    ("the clock set forward by hours", OPENED + 3 * HOUR, 0, OPENED + 3 * HOUR + LENGTH),
    ("the clock set back by a window", OPENED - LENGTH, 7, END),
    ("the clock set back by more: it was far ahead", OPENED - LENGTH - 1, 0, OPENED - 1),
]


@pytest.mark.parametrize(("now", "used", "resets"), [m[1:] for m in MOMENTS], ids=[m[0] for m in MOMENTS])
def test_a_window_holds_its_use_up_to_its_end(now: int, used: int, resets: int) -> None:
    """A window holds its use up to its end and nothing from that instant on; the next one would end its length on."""
    window = Window(OPENED, 7)
    assert (at(window, LENGTH, now).used, resets_at(window, LENGTH, now)) == (used, resets)


@pytest.mark.parametrize(("now", "used"), [m[1:3] for m in MOMENTS], ids=[m[0] for m in MOMENTS])
def test_use_adds_to_what_a_reader_was_told(now: int, used: int) -> None:
    """What is used at an instant adds to what the window holds as of then: who was told of room has it."""
    assert spend(Window(OPENED, 7), LENGTH, 5, now, now).used == used + 5


def test_with_no_window_open_nothing_is_used() -> None:
    """With no window open nothing is used, and the reset is a window's length from now."""
    assert (at(CLOSED, LENGTH, OPENED), resets_at(CLOSED, LENGTH, OPENED)) == (CLOSED, END)


# (what happens; the window before; how much was used, from when to when; when the window after opened, what it holds)
OPENINGS = [
    ("the first use opens one at its start", CLOSED, (10, OPENED, OPENED + 10), (OPENED, 10)),
    ("all at one instant", CLOSED, (10, OPENED, OPENED), (OPENED, 10)),
    ("no use opens none", CLOSED, (0, OPENED, OPENED + 10), (None, 0)),
    ("no use changes none", Window(OPENED, 5), (0, END - 10, END + 10), (OPENED, 5)),
    ("no use opens none after one ended", Window(OPENED, 5), (0, END, END + 10), (OPENED, 5)),
    ("use adds up", Window(OPENED, 5), (10, OPENED + 20, OPENED + 30), (OPENED, 15)),
    ("the next one opens at the next use", Window(OPENED, 5), (10, END + 70, END + 80), (END + 70, 10)),
    ("and so windows later", Window(OPENED, 5), (10, END + HOUR, END + HOUR + 10), (END + HOUR, 10)),
    ("full", Window(OPENED, MOST - 4), (5, OPENED, OPENED + 5), (OPENED, MOST)),
    ("up to full", Window(OPENED, MOST - 5), (5, OPENED, OPENED + 5), (OPENED, MOST)),
]
RESETS = [
    ("ends at the reset", Window(OPENED, 5), (10, END - 10, END), (OPENED, 15)),
    ("ends 1 ms after it", Window(OPENED, 5), (11, END - 10, END + 1), (END, 1)),
    ("begins at the reset", Window(OPENED, 5), (10, END, END + 10), (END, 10)),
    ("begins 1 ms before it", Window(OPENED, 5), (11, END - 1, END + 10), (END, 10)),
    ("a second on either side", Window(OPENED, 5), (2000, END - 1000, END + 1000), (END, 1000)),
    ("three quarters after it", Window(OPENED, 5), (8, END - 10, END + 30), (END, 6)),
    ("opens one and runs across its end", CLOSED, (LENGTH + 9, OPENED, END + 9), (END, 9)),
    ("exactly one window", CLOSED, (LENGTH, OPENED, END), (OPENED, LENGTH)),
    ("exactly two windows", CLOSED, (2 * LENGTH, OPENED, END + LENGTH), (END, LENGTH)),
    ("two and 1 ms", CLOSED, (2 * LENGTH + 1, OPENED, END + LENGTH + 1), (END + LENGTH, 1)),
    ("windows skipped", Window(OPENED, 5), (300_000, END - 50_000, END + 250_000), (END + 200_000, 50_000)),
]
CONTINUED = spend(Window(OPENED, 5), LENGTH, 21, END - 1, END + 20)  # by a session that ran across the reset
OVERLAPS = [
    ("another's, across the same reset", CONTINUED, (50, END - 20, END + 30), (END, 50)),
    ("across the next one too", CONTINUED, (200_000, END - 50_000, END + 150_000), (END + LENGTH, 50_000)),
    ("another's, up to the reset", CONTINUED, (20, END - 20, END), (END, 20)),
    ("another's, from the reset on", CONTINUED, (20, END, END + 20), (END, 40)),
    ("another's, begun before any was open", Window(OPENED, 20), (50, OPENED - 20, OPENED + 30), (OPENED, 70)),
    ("the same, across the reset", Window(OPENED, 20), (150_000, OPENED - 20_000, END + 30_000), (END, 30_000)),
    ("another's, begun after a pause", Window(END + 9, 20, END), (50, END - 20, END + 30), (END + 9, 50)),
]
BACK = OPENED - 3 * HOUR
CLOCK_SET = [
    ("forward within the window", Window(OPENED, 5), (10, END - 20, END - 10), (OPENED, 15)),
    ("forward by hours", Window(OPENED, 5), (10, END + HOUR, END + HOUR + 10), (END + HOUR, 10)),
    ("back by hours: it was far ahead", Window(OPENED, 5), (10, BACK, BACK + 10), (BACK, 10)),
    ("back by 1 ms more than it is old", Window(OPENED, 5), (10, OPENED - 11, OPENED - 1), (OPENED - 11, 15)),
    ("back to its opening", Window(OPENED, 5), (10, OPENED - 10, OPENED), (OPENED, 15)),
]
SPENDING = OPENINGS + RESETS + OVERLAPS + CLOCK_SET


@pytest.mark.parametrize(("before", "use", "after"), [s[1:] for s in SPENDING], ids=[s[0] for s in SPENDING])
def test_use_is_split_at_the_reset(before: Window, use: tuple[int, int, int], after: tuple[int | None, int]) -> None:
    """What falls before a reset is of the old window and what falls after it of the new one."""
    found = spend(before, LENGTH, *use)
    assert (found.opened_at, found.used) == after


@pytest.mark.parametrize("amount", [1, 2, 10, 2**53 + 1, MOST])
def test_an_uneven_share_is_split_at_the_reset(amount: int) -> None:
    """A third falls before the reset: two thirds count into the new window, less than one more or less."""
    after = spend(Window(OPENED, 0), LENGTH, amount, END - 1, END + 2).used
    assert abs(3 * after - 2 * amount) < 3


MOMENT = st.integers(1, 5 * LENGTH)


@given(st.sets(MOMENT, min_size=1, max_size=12))
def test_cuts_do_not_matter(moments: set[int]) -> None:
    """A session without a pause: however often it is read, windows follow each other from its start, and the last
    one holds what came after the last reset."""
    cuts = [OPENED, *(OPENED + moment for moment in sorted(moments))]
    window = CLOSED
    for start, end in pairwise(cuts):
        window = spend(window, LENGTH, end - start, start, end)
    lasted = cuts[-1] - OPENED
    resets = (lasted - 1) // LENGTH
    assert (window.opened_at, window.used) == (OPENED + resets * LENGTH, lasted - resets * LENGTH)


@given(st.sets(MOMENT, min_size=1, max_size=12), st.data())
def test_two_sessions_share_a_window_whenever_they_are_read(moments: set[int], data: st.DataObject) -> None:
    """Of two sessions the first is read every time and the second now and then, and both at the end: whatever ran since
    the last reset, of either, is in the window."""
    *some, last = sorted(moments)
    second = sorted(data.draw(st.sets(st.sampled_from(some))) if some else [])
    begun = data.draw(st.integers(0, (second or [last])[0]))
    reads = {end: start for start, end in pairwise([begun, *second, last])}
    window = CLOSED
    for start, end in pairwise([0, *some, last]):
        window = spend(window, LENGTH, end - start, OPENED + start, OPENED + end)
        if end in reads:
            window = spend(window, LENGTH, end - reads[end], OPENED + reads[end], OPENED + end)
    reset = (last - 1) // LENGTH * LENGTH
    assert (window.opened_at, window.used) == (OPENED + reset, last - reset + last - max(reset, begun))


LATE = [
    pytest.param([(11, END - 10, END + 1), (5, END + 1, END + 6)], 1 + 5, id="after one across the reset"),
    pytest.param([(10, END - 10, END), (10, END, END + 10)], 10, id="after one read at the reset"),
    pytest.param([(5, END + 20, END + 25)], 5, id="after one begun since"),
]


@pytest.mark.parametrize(("others", "used"), LATE)
def test_a_session_counted_late_is_split_at_the_reset(others: list[tuple[int, int, int]], used: int) -> None:
    """A session that ran across the reset and is counted last: what came before the reset is of the old window."""
    window = Window(OPENED, 5)
    for use in [*others, (50, END - 20, END + 30)]:
        window = spend(window, LENGTH, *use)
    assert window.used == used + 30
