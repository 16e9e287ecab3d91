"""When a tunnel can carry, from handshakes that are told by a wall clock that may be set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain import carrying
from appliance.domain.carrying import REJECT_AFTER_MS, Span
from appliance.domain.clock import Moment

HOUR = 3_600_000
BEFORE = Moment(wall_ms=100 * HOUR, boot_ms=10 * HOUR, boot_id="boot")
NOW = Moment(wall_ms=112 * HOUR, boot_ms=22 * HOUR, boot_id="boot")  # the clocks agree: twelve hours later
instants = st.integers(0, 100)
spans = st.tuples(instants, instants).map(lambda pair: Span(*pair))


def stepped(by_ms: int) -> Moment:
    return Moment(NOW.wall_ms + by_ms, NOW.boot_ms, NOW.boot_id)


@pytest.mark.parametrize("after_ms", [0, 1, 5 * HOUR, 12 * HOUR])
def test_a_clock_that_was_not_set_tells_the_instant(after_ms: int) -> None:
    """Where both clocks have gone on alike, a handshake was when it is told to have been."""
    at_ms = BEFORE.boot_ms + after_ms
    assert carrying.shaken_between(BEFORE.wall_ms + after_ms, BEFORE, NOW) == Span(at_ms, at_ms)


@pytest.mark.parametrize("by_ms", [-2 * HOUR, -1000, 1000, 2 * HOUR])
@pytest.mark.parametrize("was_ms", [13 * HOUR, 16 * HOUR, 19 * HOUR])
def test_a_clock_that_was_set_tells_two_instants(by_ms: int, was_ms: int) -> None:
    """A handshake before the clock was set, or after it: it was at one of the two instants, the earlier comes first."""
    for set_before in (True, False):
        told_ms = BEFORE.wall_ms + was_ms - BEFORE.boot_ms + (by_ms if set_before else 0)
        found = carrying.shaken_between(told_ms, BEFORE, stepped(by_ms))
        assert was_ms in found
        assert found.until_ms - found.from_ms == abs(by_ms)


@pytest.mark.parametrize("told_ms", [BEFORE.wall_ms - 1, NOW.wall_ms + 1, 0, 2**62])
def test_an_impossible_time_tells_nothing(told_ms: int) -> None:
    """A time before the one or after the other moment: the handshake was anywhere in between."""
    assert carrying.shaken_between(told_ms, BEFORE, NOW) == Span(BEFORE.boot_ms, NOW.boot_ms)


@pytest.mark.parametrize("by_ms", [-13 * HOUR, 13 * HOUR])
def test_a_clock_set_further_than_the_time_between(by_ms: int) -> None:
    """Set by more than has passed, the clock tells nothing, whether the handshake was before or after it."""
    for told_ms in (BEFORE.wall_ms + HOUR, NOW.wall_ms + by_ms - HOUR):
        assert carrying.shaken_between(told_ms, BEFORE, stepped(by_ms)) == Span(BEFORE.boot_ms, NOW.boot_ms)


def test_after_a_reboot_it_was_in_this_boot() -> None:
    """The moment before was in another boot: nothing tells whether the clock was set since this one began."""
    before = Moment(BEFORE.wall_ms, 500 * HOUR, "the boot before")
    for told_ms in (NOW.wall_ms - NOW.boot_ms - 1, NOW.wall_ms - HOUR, NOW.wall_ms + 1):
        assert carrying.shaken_between(told_ms, before, NOW) == Span(0, NOW.boot_ms)


@given(
    before_ms=st.integers(0, 10 * HOUR),
    passed_ms=st.integers(0, 10 * HOUR),
    part=st.fractions(0, 1),
    set_ms=st.integers(-20 * HOUR, 20 * HOUR),
    set_after=st.booleans(),
)
def test_a_span_that_is_proven_is_a_true_one(
    before_ms: int, passed_ms: int, part: float, set_ms: int, *, set_after: bool
) -> None:
    """However the clock was set between two moments, before or after the handshake, that was between the two instants:
    what is counted from the last one until REJECT_AFTER_MS after the first could truly be carried."""
    before = Moment(100 * HOUR, before_ms, "boot")
    now = Moment(before.wall_ms + passed_ms + set_ms, before_ms + passed_ms, "boot")
    after_ms = int(passed_ms * part)
    at_ms = before.boot_ms + after_ms
    first, last = carrying.shaken_between(before.wall_ms + after_ms + (0 if set_after else set_ms), before, now)
    assert before.boot_ms <= first <= at_ms <= last <= now.boot_ms
    counted = carrying.extended((), Span(last, first + REJECT_AFTER_MS))
    assert all(at_ms <= span.from_ms and span.until_ms <= at_ms + REJECT_AFTER_MS for span in counted)


def extended(every: list[Span]) -> tuple[Span, ...]:
    found: tuple[Span, ...] = ()
    for span in every:
        found = carrying.extended(found, span)
    return found


def ms_of(every: list[Span] | tuple[Span, ...]) -> set[int]:
    return {ms for span in every for ms in range(span.from_ms, span.until_ms)}


def test_overlapping_and_adjacent_spans_are_one() -> None:
    """Spans that overlap or touch are one; with a gap they are two; one that is empty is none."""
    one = extended([Span(0, 10)])
    assert carrying.extended(one, Span(5, 15)) == (Span(0, 15),)
    assert carrying.extended(one, Span(10, 15)) == (Span(0, 15),)
    assert carrying.extended(one, Span(3, 7)) == one
    assert carrying.extended(one, Span(11, 15)) == (Span(0, 10), Span(11, 15))
    for empty in (Span(20, 20), Span(20, 15)):
        assert carrying.extended(one, empty) == one


@given(st.lists(spans, max_size=8))
def test_no_time_is_counted_twice_and_none_is_made_up(every: list[Span]) -> None:
    """Spans in the order in which they begin, as looks find them, are all of them together: no more, no less."""
    every = sorted(every)
    found = extended(every)
    assert ms_of(found) == ms_of(every)
    assert sum(span.until_ms - span.from_ms for span in found) == len(ms_of(every))


@given(st.lists(spans, max_size=8), instants, instants)
def test_what_is_between_two_instants(every: list[Span], from_ms: int, until_ms: int) -> None:
    """What is cut out of the spans is the time that is in both; none of it is empty."""
    found = carrying.between(extended(sorted(every)), from_ms, until_ms)
    assert ms_of(found) == ms_of(every) & set(range(from_ms, until_ms))
    assert all(span.from_ms < span.until_ms for span in found)
