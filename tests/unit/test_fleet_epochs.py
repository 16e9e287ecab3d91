"""Epochs: what a hub folds is what the exits' counters have moved, whatever is restored, lost or doubled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.domain.charges import Amount, Charge
from appliance.domain.pricing import Rates
from appliance.fleet.reports.epochs import (
    NOTHING,
    CountedUntil,
    Epoch,
    FoldedFigures,
    OwnSession,
    PeerLife,
    ReportBatch,
    Told,
    Totals,
    adopted,
    after_going_back,
    folded,
    moved_since,
    reported,
    used_since,
    went_back,
)
from tests.support.fleet.epochs_model import ACTIONS, SESSIONS, run

if TYPE_CHECKING:
    import random

STEP = st.tuples(st.sampled_from(ACTIONS), st.sampled_from(SESSIONS), st.integers(1, 9))


def steps(*names: str) -> list[tuple[str, str, int]]:
    return [(name, "a", 1) for name in names]


@settings(max_examples=300, deadline=None)
@given(st.lists(STEP, max_size=25), st.integers(0, 2**16))
@example(steps("back_up", "reboot", "use", "report", "restore"), 0)  # counted twice if counters of another boot are new
@example(steps("back_up", "restore", "use", "report", "restore", "use"), 0)  # lost if two lives have one epoch
@example(steps("use", "back_up", "cut", "restore"), 0)  # lost if an epoch ends before its rest is reported
@example(steps("back_up", "restore", "use", "report", "restore"), 0)  # counted twice if the counter proves it for both
@example(steps("use", "report", "back_up", "use", "report", "cut", "restore", "reboot", "use", "heal"), 0)
@example(steps("use", "report", "back_up", "use", "report", "wipe_hub", "restore", "use"), 0)
@example(steps("back_up", "use", "reboot", "report", "back_up", "restore", "report", "restore"), 1)  # of two pasts
@example(steps("use", "report", "image the hub", "back_up", "use", "report", "roll_back_hub", "restore", "use"), 0)
def test_nothing_is_lost_or_doubled(schedule: list[tuple[str, str, int]], seed: int) -> None:
    """Each figure that a hub has is as large as what it stands for; in the end that is all that the exit knows."""
    run(schedule, seed)


def without(*names: str) -> st.SearchStrategy[list[tuple[str, str, int]]]:
    return st.lists(STEP.filter(lambda step: step[0] not in names), max_size=25)


@settings(max_examples=150, deadline=None)
@given(without("crash", "reboot", "roll_back_machine", "end", "remove_peer", "lose_interface"), st.integers(0, 99))
def test_as_long_as_peers_stay_their_counters_prove_everything(schedule: list[tuple[str, str, int]], seed: int) -> None:
    """The hub has every byte in the end, whatever was restored or lost."""
    fleet = run(schedule, seed)
    assert {name: report.figure for name, report in fleet.hub.told.items()} == {
        name: len(moved) for name, moved in fleet.tunnel.items()
    }


TWO_PASTS = steps(
    *("back_up", "report into the void", "back_up", "roll_back_store", "use", "report"),
    *("remove_peer", "roll_back_store", "roll_back_store", "fold"),
)


@settings(max_examples=150, deadline=None)
@given(without("wipe_hub", "roll_back_hub"), st.integers(0, 99))
@example(steps("back_up", *["restore", "use", "report", "end"] * 2, "restore", "use", "restore", "use"), 0)
@example(TWO_PASTS, 34)  # lost if what the hub has is asked for from the last batch that was sent on
def test_what_a_hub_has_folded_it_keeps(schedule: list[tuple[str, str, int]], seed: int) -> None:
    """Also of peers that are gone, and of sessions that were brought back, however often the store went back."""
    fleet = run(schedule, seed)
    for name, told in fleet.told.items():
        assert fleet.hub.told[name].seen >= told


REPORTS = st.builds(
    FoldedFigures,
    st.builds(Epoch, st.integers(0, 2), st.sampled_from("xy")),
    st.integers(1, 9),
    st.builds(
        Totals,
        st.builds(Amount, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
        st.dictionaries(
            st.sampled_from(["2026-10", "2026-11"]),
            st.builds(Charge, *[st.integers(0, 9)] * 3, *[st.none() | st.integers(0, 9)] * 2),
        ),
    ),
)


def fold_all(reports: list[FoldedFigures]) -> FoldedFigures | None:
    known = None
    for report in reports:
        known = folded(known, report)
    return known


@given(st.lists(REPORTS, max_size=6), st.randoms(), st.data())
def test_the_fold_asks_for_no_order_and_no_number(
    reports: list[FoldedFigures], order: random.Random, data: st.DataObject
) -> None:
    """Reports that come in another order, or more than once, come to the same."""
    once = fold_all(reports)
    again = [*reports, *data.draw(st.lists(st.sampled_from(reports), max_size=6))] if reports else []
    order.shuffle(again)
    assert fold_all(again) == once


@given(REPORTS, REPORTS)
def test_a_fold_goes_up_only(known: FoldedFigures, new: FoldedFigures) -> None:
    """Within an epoch no figure becomes smaller; an epoch gives way to a later one alone."""
    after = folded(known, new)
    assert after.epoch >= known.epoch
    if after.epoch == known.epoch:
        before, amount = known.totals.amount, after.totals.amount
        assert amount.time_ms >= before.time_ms
        assert amount.bytes_in >= before.bytes_in
        assert after.v >= known.v


def lives(*counters: tuple[str, int]) -> list[PeerLife]:
    """`boot` or `boot mark`."""
    return [PeerLife(boot, 3, rx, 0, mark) for name, rx in counters for boot, _, mark in [name.partition(" ")]]


@pytest.mark.parametrize(
    ("told", "own", "moved"),
    [
        ([], [("a", 40)], 40),  # nothing had been read
        ([("a", 40)], [], 0),
        ([("a", 40)], [("a", 50)], 10),
        ([("a", 40)], [("a", 30)], 0),  # not read since the store went back
        ([("a", 40)], [("a", 30), ("a", 7)], 7),  # its peer was removed and added again
        ([("a", 40)], [("b", 50)], 50),
        ([("a", 40)], [("a", 40), ("b", 5)], 5),
        ([("a", 40)], [("a", 30), ("b", 5)], 5),
        ([("a", 40), ("b", 5)], [("a", 40), ("b", 9)], 4),
        ([("a", 40), ("b", 5)], [("a", 30), ("b", 9)], 4),
        ([("a", 40), ("b", 5)], [("a", 30), ("c", 9)], 9),
        ([("a", 40), ("b", 5), ("c", 6)], [("a", 40), ("b", 3), ("c", 8), ("d", 1)], 3),
        ([("a", 40), ("a", 5)], [("a", 30), ("a", 3)], 0),  # added again, the same time or once more
        ([("b", 5)], [("a", 40), ("b", 9)], 44),  # of another past, in which nothing of this was told
        ([("a", 40), ("a", 5)], [("a", 40), ("a", 9)], 4),  # as older versions have it
        ([("a", 40), ("a x", 5)], [("a", 30), ("a y", 7)], 7),  # added again after the store went back, not before
        ([("a", 40), ("a x", 5)], [("a", 30), ("a x", 7)], 2),  # before, and it is in the tunnel still
        ([("a", 40)], [("a", 30), ("a x", 5), ("a y", 7)], 12),
    ],
)
def test_only_what_moved_since_it_was_told_is_new(
    told: list[tuple[str, int]], own: list[tuple[str, int]], moved: int
) -> None:
    """Lives from before the store went back are not; the one told last is from where it stood, later ones whole."""
    assert moved_since(lives(*told), lives(*own)) == (moved, 0)


def test_a_store_that_went_back_shares_no_number() -> None:
    """It goes on above what the hub has and what it has itself; a hub that lacks batches is no sign of it."""
    own, known = ReportBatch(7, "x"), ReportBatch(9, "y")
    assert went_back(own, known)
    assert went_back(own, ReportBatch(7, "y"))
    assert not any((went_back(own, own), went_back(own, None), went_back(known, own)))
    assert after_going_back(own, known, 5).number == 15
    assert after_going_back(known, None, 5).number == 15


def test_a_peer_that_became_another_sessions_proves_nothing() -> None:
    """What its counters moved since then is reported for the session that has it."""
    own = OwnSession(Totals(Amount(bytes_in=90)), lives(("a", 90)))
    assert used_since(Told(Totals(), lives(("a", 40)), passed_on=True), own).total_bytes == 0
    assert used_since(Told(Totals(), lives(("a", 40))), own) == Amount(0, 50, 0)


def test_time_that_may_have_been_reported_counts_once() -> None:
    """Of the time counted since this store's last report, what the hub was told meanwhile may be all it has."""
    own = OwnSession(Totals(Amount(time_ms=50_000)), (), None, 20_000, CountedUntil("boot", 100_000))
    assert used_since(Told(Totals(), (), CountedUntil("boot", 110_000)), own).time_ms == 20_000
    assert used_since(Told(Totals(), (), CountedUntil("boot", 140_000)), own).time_ms == 0
    assert used_since(Told(Totals(), (), CountedUntil("boot", 90_000)), own).time_ms == 30_000
    assert used_since(Told(Totals(), (), CountedUntil("next", 10_000)), own).time_ms == 20_000


def test_lines_go_on_from_what_was_told() -> None:
    """An epoch's lines are the fleet's, with what each own line gains; what comes at once is of the last month."""
    rates = Rates("eur", 6_000, 0)
    own_lines = {"2026-10": Charge(60, 10, 0, 6_000, 0), "2026-11": Charge(60, 30, 0, 6_000, 0)}
    own = OwnSession(Totals(Amount(120_000, 40, 0), own_lines), lives(("boot", 40)), rates)
    told_lines = {"2026-10": Charge(90, 15, 0, 9_000, 0), "2026-11": Charge(10, 20, 0, 1_000, 0)}
    told = Told(Totals(Amount(100_000, 35, 0), told_lines), lives(("boot", 35)), CountedUntil("boot", 60_000))
    basis = adopted(told, own)
    at_once = reported(basis, own.totals)
    assert at_once.amount == Amount(160_000, 40, 0)
    assert at_once.lines == {"2026-10": Charge(90, 15, 0, 9_000, 0), "2026-11": Charge(70, 25, 0, 7_000, 0)}
    later = Totals(Amount(180_000, 50, 0), {**own_lines, "2026-12": Charge(60, 10, 0, 6_000, 0)})
    assert reported(basis, later).lines == {**at_once.lines, "2026-12": Charge(60, 10, 0, 6_000, 0)}
    assert reported(NOTHING, later) == later
