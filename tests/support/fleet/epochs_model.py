"""A model of an exit with two sessions and of its hub, to run the pure part of epochs through schedules of faults.

Each byte has a number, and each store, message and fold carries the set of those it stands for beside its figure: where
that is not the size of the set, something is lost or doubled.
"""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import dataclass, field

from appliance.domain.charges import Amount
from appliance.fleet.reports.epochs import (
    NOTHING,
    Basis,
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
    reported,
    reported_lives,
    went_back,
)

SESSIONS = ("a", "b")
FIRST, NO_BATCH = Epoch(), ReportBatch()
Bytes = frozenset[int]


@dataclass
class Row:
    """What the store has of one session. `seen`: the bytes that its total stands for; `life`: its mark."""

    live: bool = True
    total: int = 0
    seen: Bytes = frozenset()
    life: str = ""
    counters: PeerLife | None = None
    lives: list[PeerLife] = field(default_factory=list)
    v: int = 1
    sent: int = 0
    epoch: Epoch = FIRST
    basis: Basis = NOTHING
    basis_seen: Bytes = frozenset()

    def all_lives(self) -> tuple[PeerLife, ...]:
        return (*self.lives, *([self.counters] if self.counters else []))

    def begin_life(self, name: str) -> None:
        if self.counters is not None:
            self.lives.append(self.counters)
        self.counters, self.life = None, name


@dataclass
class Disk:
    """What a backup copies."""

    batch: ReportBatch = NO_BATCH
    acknowledged: int = 0
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
    lives: tuple[PeerLife, ...]


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
    """The exit, its hub and what is between them.

    `tunnel`: what the counters of each peer stand for. `names`: of the peers that were put again in this boot, which
    the exit keeps where no restore reaches them. `told`: all that a hub has ever folded.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - decides what arrives
        self.disk, self.hub = Disk(), Hub()
        self.backups: list[Disk] = []
        self.images: list[Hub] = []
        self.flying: list[Report] = []
        self.linked, self.contacted = True, False
        self.boot, self.interface, self.next_byte = 1, 1, 0
        self.tunnel: dict[str, set[int]] = {name: set() for name in SESSIONS}
        self.names: dict[str, str] = {}
        self.told: dict[str, set[int]] = {name: set() for name in SESSIONS}

    # The host

    def use(self, session: str, count: int) -> None:
        if session in self.tunnel:
            self.tunnel[session] |= set(range(self.next_byte, self.next_byte + count))
            self.next_byte += count

    def tick(self) -> None:
        for name, row in self.disk.rows.items():
            if not row.live:
                self.tunnel.pop(name, None)
            elif name not in self.tunnel:
                row.begin_life(str(self.random.random()))
                self.names[name] = row.life
                self.tunnel[name] = set()
            else:
                self._read(name, row)

    def _read(self, name: str, row: Row) -> None:
        moved, before = self.tunnel[name], row.counters
        now = PeerLife(f"boot{self.boot}", self.interface, len(moved), 0, row.life)
        new = len(moved) - (before.rx_bytes if before is not None else 0)
        assert new >= 0, "these are not its counters"
        if new:
            row.total += new
            # A counter moves by the newest of its bytes.
            row.seen |= set(sorted(moved)[len(moved) - new :])
            row.counters, row.v = now, row.v + 1

    def end(self, session: str) -> None:
        """As a request for it does, with the counters as they are then."""
        self.tick()
        row = self.disk.rows[session]
        if row.live:
            row.begin_life("")
            row.live, row.v = False, row.v + 1
            del self.tunnel[session]

    def remove_peer(self, session: str) -> None:
        """As another program may; what it has moved since the last tick nobody knows."""
        self.tunnel.pop(session, None)

    def lose_interface(self) -> None:
        self.interface += 1
        self.tunnel.clear()
        self.tick()

    def reboot(self) -> None:
        self.tick()
        self.crash()

    def crash(self) -> None:
        self._boot()
        self.start_again()

    def _boot(self) -> None:
        self.boot += 1
        self.tunnel, self.names = {}, {}

    def back_up(self) -> None:
        self.tick()
        self.backups.append(deepcopy(self.disk))

    def restore(self) -> None:
        if self.backups:
            self.disk = deepcopy(self.random.choice(self.backups))
            self.disk.restored = True
            self.start_again()

    def roll_back_store(self) -> None:
        """As `restore`, but nothing says so."""
        if self.backups:
            self.disk = deepcopy(self.random.choice(self.backups))
            self.start_again()

    def roll_back_machine(self) -> None:
        """The same; the machine boots anew."""
        if self.backups:
            self._boot()
            self.roll_back_store()

    def start_again(self) -> None:
        """What the process before has sent arrives or not, but not after the next one has reached the hub."""
        self.deliver()
        self.flying.clear()
        self.contacted = False
        for name, row in self.disk.rows.items():
            if row.live and self.names.get(name, row.life) != row.life:
                row.begin_life(self.names[name])
        self.tick()

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
                self.adopt(row, told if told is not None and told.batch.number > self.disk.acknowledged else None)
            self.disk.batch, self.disk.restored = after_going_back(own, known, self.random.getrandbits(32)), False
            self.disk.acknowledged = self.disk.batch.number
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
                made = Report(
                    name,
                    self.disk.batch,
                    row.v,
                    row.epoch,
                    reported(row.basis, Totals(Amount(bytes_in=row.total))).amount.bytes_in,
                    row.basis_seen | row.seen,
                    tuple(reported_lives(row.basis, row.all_lives())),
                )
                if lost:
                    self.flying.append(made)
                else:
                    self.hub.stream[name, row.epoch] = made
                    row.sent = max(row.sent, row.v)
                    self.disk.acknowledged = self.disk.batch.number

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
            case "end" | "remove_peer":
                getattr(self, name)(session)
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
            self.told[report.session] |= report.seen

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
            assert told.seen >= self.tunnel.get(name, set()), "lost, although the counters have it"
            assert (told.v, told.epoch) == (row.sent, row.epoch), "the digests stay different"


ACTIONS = (
    *("use", "use", "report", "report into the void", "deliver", "fold", "compare", "tick", "back_up", "restore"),
    *("reboot", "crash", "roll_back_store", "roll_back_machine", "wipe_hub", "roll_back_hub", "image the hub", "cut"),
    *("heal", "end", "remove_peer", "lose_interface"),
)


def run(schedule: list[tuple[str, str, int]], seed: int) -> Fleet:
    """Raises AssertionError where a figure is not what it stands for, or the hub lacks something in the end."""
    fleet = Fleet(seed)
    for name, session, count in schedule:
        fleet.do(name, session, count)
        fleet.check()
    fleet.settle()
    return fleet
