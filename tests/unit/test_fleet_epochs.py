"""Epochs: what a hub folds is what the exits' counters have moved, whatever is restored, rolled back, lost or doubled.

The model has one exit with two sessions and one hub. Each byte has a number, and each store, message and fold carries
the set of those it stands for beside its figure: where that is not the size of the set, something is lost or doubled.
"""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.domain.charges import Amount, Charge
from appliance.domain.entities import Baseline
from appliance.domain.pricing import Rates
from appliance.fleet.epochs import (
    NOTHING,
    Basis,
    CountedUntil,
    Epoch,
    FoldedFigures,
    OwnSession,
    ReportBatch,
    Told,
    Totals,
    adopted,
    after_going_back,
    folded,
    moved_since,
    reported,
    reported_lives,
    used_since,
    went_back,
)

SESSIONS = ("a", "b")
FIRST, NO_BATCH = Epoch(), ReportBatch()
Bytes = frozenset[int]


@dataclass
class Row:
    """What the store has of one session. `seen`: the bytes that its total stands for."""

    total: int = 0
    seen: Bytes = frozenset()
    counters: Baseline | None = None
    lives: list[Baseline] = field(default_factory=list)
    v: int = 1
    sent: int = 0
    epoch: Epoch = FIRST
    basis: Basis = NOTHING
    basis_seen: Bytes = frozenset()

    def all_lives(self) -> tuple[Baseline, ...]:
        return (*self.lives, *([self.counters] if self.counters else []))


@dataclass
class Disk:
    """What a backup copies."""

    batch: ReportBatch = NO_BATCH
    restored: bool = False
    rows: dict[str, Row] = field(default_factory=lambda: {name: Row() for name in SESSIONS})


@dataclass(frozen=True)
class Report:
    session: str
    batch: ReportBatch
    v: int
    epoch: Epoch
    figure: int
    seen: Bytes
    lives: tuple[Baseline, ...]


@dataclass
class Hub:
    """The stream, with the last report of each subject, and the fold."""

    stream: dict[tuple[str, Epoch], Report] = field(default_factory=dict)
    batch: ReportBatch | None = None
    told: dict[str, Report] = field(default_factory=dict)

    def fold(self) -> None:
        for report in self.stream.values():
            known = self.told.get(report.session)
            was = None if known is None else _figures(known)
            now = folded(was, _figures(report))
            if self.batch is None or report.batch.number >= self.batch.number:
                self.batch = report.batch
            if known is None or now != was:
                both = known is not None and known.epoch == report.epoch
                last = known if known is not None and both and known.v > report.v else report
                seen = report.seen | known.seen if known is not None and both else report.seen
                self.told[report.session] = Report(
                    report.session,
                    last.batch,
                    now.v,
                    now.epoch,
                    now.totals.amount.bytes_in,
                    seen,
                    last.lives,
                )


def _figures(report: Report) -> FoldedFigures:
    return FoldedFigures(report.epoch, report.v, Totals(Amount(bytes_in=report.figure)))


class Fleet:
    """The exit, its hub and what is between them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - decides what arrives
        self.disk, self.hub = Disk(), Hub()
        self.backups: list[Disk] = []
        self.images: list[Hub] = []
        self.flying: list[Report] = []
        self.linked, self.contacted = True, False
        self.boot, self.next_byte = 1, 0
        self.counter: dict[str, set[int]] = {name: set() for name in SESSIONS}

    # The host

    def use(self, session: str, count: int) -> None:
        self.counter[session] |= set(range(self.next_byte, self.next_byte + count))
        self.next_byte += count

    def tick(self) -> None:
        for name, row in self.disk.rows.items():
            moved = self.counter[name]
            now = Baseline(f"boot{self.boot}", 1, len(moved), 0)
            before = row.counters
            same = before is not None and before.boot_id == now.boot_id
            new = len(moved) - (before.rx_bytes if before is not None and same else 0)
            if not new:
                continue
            if before is not None and not same:
                row.lives.append(before)
            row.total += new
            # A counter moves by the newest of its bytes.
            row.seen |= set(sorted(moved)[len(moved) - new :])
            row.counters, row.v = now, row.v + 1

    def reboot(self) -> None:
        self.tick()
        self.crash()

    def crash(self) -> None:
        self.boot += 1
        self.counter = {name: set() for name in SESSIONS}
        self.start_again()

    def back_up(self) -> None:
        self.tick()
        self.backups.append(deepcopy(self.disk))

    def restore(self) -> None:
        if self.backups:
            self.disk = deepcopy(self.random.choice(self.backups))
            self.disk.restored = True
            self.start_again()

    def roll_back_machine(self) -> None:
        """As `restore`, but nothing says so. The machine boots anew."""
        if self.backups:
            self.disk = deepcopy(self.random.choice(self.backups))
            self.boot += 1
            self.counter = {name: set() for name in SESSIONS}
            self.start_again()

    def start_again(self) -> None:
        """What the process before has sent arrives or not, but not after the next one has reached the hub."""
        self.deliver()
        self.flying.clear()
        self.contacted = False

    # The wire

    def deliver(self) -> None:
        """Delivers some of what is on its way, in any order; some of it twice."""
        self.random.shuffle(self.flying)
        for report in [r for r in self.flying if self.random.random() < 0.7]:
            self.hub.stream[report.session, report.epoch] = report
            if self.random.random() < 0.8:
                self.flying.remove(report)

    def contact(self) -> None:
        self.hub.fold()
        own, known = self.disk.batch, self.hub.batch
        if self.disk.restored or went_back(own, known):
            for name, row in self.disk.rows.items():
                told = self.hub.told.get(name)
                self.adopt(row, told if told is not None and told.batch.number > own.number else None)
            self.disk.batch, self.disk.restored = after_going_back(own, known, self.random.getrandbits(32)), False
        self.contacted = True

    def adopt(self, row: Row, told: Report | None) -> None:
        turn = row.epoch.turn
        if told is not None:
            own = OwnSession(Totals(Amount(bytes_in=row.total)), row.all_lives())
            row.basis = adopted(Told(Totals(Amount(bytes_in=told.figure)), told.lives), own)
            row.basis_seen, turn = told.seen, max(turn, told.epoch.turn)
            row.v = max(row.v, told.v)
        row.epoch = Epoch(turn + 1, str(self.random.random()))
        row.v += 1

    def report(self, *, lost: bool = False) -> None:
        self.tick()
        if not self.linked:
            return
        if not self.contacted:
            self.contact()
        self.disk.batch = ReportBatch(self.disk.batch.number + 1, str(self.random.random()))
        for name, row in self.disk.rows.items():
            if row.v > row.sent:
                figure = reported(row.basis, Totals(Amount(bytes_in=row.total))).amount.bytes_in
                seen = row.basis_seen | row.seen
                made = Report(
                    name,
                    self.disk.batch,
                    row.v,
                    row.epoch,
                    figure,
                    seen,
                    tuple(reported_lives(row.basis, row.all_lives())),
                )
                if lost:
                    self.flying.append(made)
                else:
                    self.hub.stream[name, row.epoch] = made
                    row.sent = max(row.sent, row.v)

    def compare(self) -> None:
        """What a digest does: sessions of which the hub has another report than was acknowledged are sent again."""
        self.tick()
        self.hub.fold()
        for name, row in self.disk.rows.items():
            told = self.hub.told.get(name)
            if told is not None and told.epoch > row.epoch:
                self.adopt(row, told)
            elif told is None or told.v != row.sent or told.epoch != row.epoch:
                row.v += 1

    # The hub

    def wipe_hub(self) -> None:
        self.hub, self.contacted = Hub(), False

    def roll_back_hub(self) -> None:
        if self.images:
            self.hub, self.contacted = deepcopy(self.random.choice(self.images)), False

    def do(self, name: str, session: str, count: int) -> None:
        match name:
            case "use":
                self.use(session, count)
            case "image the hub":
                self.images.append(deepcopy(self.hub))
            case "cut":
                self.linked = self.contacted = False
            case "heal":
                self.linked = True
            case "report into the void":
                self.report(lost=True)
            case "fold":
                self.hub.fold()
            case _:
                getattr(self, name)()

    def check(self) -> None:
        for report in self.hub.told.values():
            assert report.figure == len(report.seen)

    def settle(self) -> None:
        """The link is whole, and stays so. What is on its way has arrived or is lost."""
        self.linked = True
        self.deliver()
        self.flying.clear()
        self.report()
        for _ in range(3):
            self.compare()
            self.report()
        self.hub.fold()
        self.check()
        for name, row in self.disk.rows.items():
            told = self.hub.told[name]
            assert told.seen >= row.seen | row.basis_seen, "lost"
            assert (told.v, told.epoch) == (row.sent, row.epoch), "the digests stay different"


ACTIONS = (
    *("use", "use", "report", "report into the void", "deliver", "fold", "compare", "tick", "back_up", "restore"),
    *("reboot", "crash", "roll_back_machine", "wipe_hub", "roll_back_hub", "image the hub", "cut", "heal"),
)
STEP = st.tuples(st.sampled_from(ACTIONS), st.sampled_from(SESSIONS), st.integers(1, 9))


def steps(*names: str) -> list[tuple[str, str, int]]:
    return [(name, "a", 1) for name in names]


def run(schedule: list[tuple[str, str, int]], seed: int) -> Fleet:
    fleet = Fleet(seed)
    for name, session, count in schedule:
        fleet.do(name, session, count)
        fleet.check()
    fleet.settle()
    return fleet


@settings(max_examples=400, deadline=None)
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


@settings(max_examples=200, deadline=None)
@given(
    st.lists(STEP.filter(lambda s: s[0] not in ("crash", "reboot", "roll_back_machine")), max_size=25),
    st.integers(0, 99),
)
def test_within_a_boot_the_counters_prove_everything(schedule: list[tuple[str, str, int]], seed: int) -> None:
    """As long as the interface lives, the hub has every byte in the end, whatever was restored or lost."""
    fleet = run(schedule, seed)
    assert {name: report.figure for name, report in fleet.hub.told.items()} == {
        name: len(moved) for name, moved in fleet.counter.items()
    }


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


def lives(*counters: tuple[str, int]) -> list[Baseline]:
    return [Baseline(boot, 3, rx, 0) for boot, rx in counters]


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
        ([("a", 40), ("a", 5)], [("a", 40), ("a", 9)], 4),
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
