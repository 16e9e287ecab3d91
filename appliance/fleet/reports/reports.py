"""Describes what exits report to the hub, as it is sent: JSON, in which fields that are not known are passed over."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from appliance.domain.charges import Amount, Charge, day_of, month_of
from appliance.domain.pricing import Rates
from appliance.domain.windows import Window, Windows
from appliance.fleet.link.wire import PREFIX
from appliance.fleet.reports.epochs import CountedUntil, Epoch, FoldedFigures, PeerLife, ReportBatch, Told, Totals

STATE = f"{PREFIX}.state"

# SQLite's integers, with room for sums. A hub has to believe what an exit says of itself; it need not store nonsense.
Count = Annotated[int, Meta(ge=0, le=2**62)]
Text = Annotated[str, Meta(max_length=600)]
Month = Annotated[str, Meta(pattern="^(19[7-9][0-9]|2[0-9]{3})-(0[1-9]|1[0-2])$")]
# Of a session: four times the lives that an exit reports, and the months of a hundred years. What is read is larger in
# memory than it was on its way, and a lying exit fills its stream with it.
LIVES_END, LINES_END = 256, 1200
SESSION = re.compile(r"[0-9A-Za-z_-]{1,64}")
Instant = Annotated[int, Meta(ge=0, le=2**43)]  # ms since the epoch, up to the year 2248


class ReportedRates(Struct, frozen=True, array_like=True):
    """Holds the prices of a line."""

    currency: Annotated[str, Meta(max_length=8)]
    per_minute: Count
    per_gib: Count


class ReportedLine(Struct, frozen=True, omit_defaults=True):
    """Holds a session's part of one month, as an invoice has it. Costs are None where no price was configured."""

    month: Month
    started_at: Instant = msgspec.field(name="from")
    ended_at: Instant | None = msgspec.field(default=None, name="to")
    seconds: Count = msgspec.field(default=0, name="s")
    bytes_in: Count = msgspec.field(default=0, name="in")
    bytes_out: Count = msgspec.field(default=0, name="out")
    rates: ReportedRates | None = None
    time_mc: Count | None = None
    bytes_mc: Count | None = None

    @property
    def charge(self) -> Charge:
        return Charge(self.seconds, self.bytes_in, self.bytes_out, self.time_mc, self.bytes_mc)


class ReportedWindows(Struct, frozen=True, array_like=True):
    """Holds the windows of the session's account on its exit, as last committed. None: closed."""

    bytes_opened_at: Instant | None = None
    bytes_used: Count = 0
    time_opened_at: Instant | None = None
    time_used_ms: Count = 0

    @classmethod
    def of(cls, windows: Windows) -> ReportedWindows:
        traffic, time = windows.traffic, windows.time
        return cls(traffic.opened_at, traffic.used, time.opened_at, time.used)

    @property
    def windows(self) -> Windows:
        return Windows(Window(self.bytes_opened_at, self.bytes_used), Window(self.time_opened_at, self.time_used_ms))


class ReportedLife(Struct, frozen=True, array_like=True):
    """Holds the last counters of one life of a session's peer. `mark`: see `epochs.PeerLife`."""

    boot_id: Annotated[str, Meta(max_length=64)]
    ifindex: Count
    rx_bytes: Count
    tx_bytes: Count
    mark: Annotated[str, Meta(max_length=32)] = ""


class SessionReport(Struct, frozen=True, omit_defaults=True):
    """Describes a session as its exit has it. `state` and what follows it is empty for one that is lost to its exit;
    of one whose lines it still has, account and lines are told.

    `batch`: of the batch it is sent in. `lives`: what its figures were made from. `passed_on`: see `Told`.
    """

    v: Count
    epoch: Annotated[str, Meta(max_length=32, pattern="^[0-9a-f]*$")] = msgspec.field(name="e")
    turn: Annotated[int, Meta(ge=0, le=2**53)]
    batch: Annotated[int, Meta(ge=0, le=2**53)]
    mark: Annotated[str, Meta(max_length=32)]
    created_at: Instant
    bytes_in: Count = msgspec.field(name="in")
    bytes_out: Count = msgspec.field(name="out")
    ms: Count
    state: Text = "terminated"
    account_id: Text = msgspec.field(default="", name="acc")
    tier: Text = ""
    region: Text = ""
    public_ip: Text = msgspec.field(default="", name="ip")  # of the exit, as its client was told
    reason: Text | None = None
    expires_at: Instant = 0
    ended_at: Instant | None = None
    device_id: Text = msgspec.field(default="", name="dev")
    until_ms: Count = 0
    until_boot: Annotated[str, Meta(max_length=64)] = ""
    lives: Annotated[tuple[ReportedLife, ...], Meta(max_length=LIVES_END)] = ()
    passed_on: bool = False
    lines: Annotated[tuple[ReportedLine, ...], Meta(max_length=LINES_END)] = ()
    windows: ReportedWindows | None = msgspec.field(default=None, name="win")  # not kept with the session

    @property
    def figures(self) -> FoldedFigures:
        lines = {line.month: line.charge for line in self.lines}
        return FoldedFigures(self.of_epoch, self.v, Totals(Amount(self.ms, self.bytes_in, self.bytes_out), lines))

    @property
    def of_epoch(self) -> Epoch:
        return Epoch(self.turn, self.epoch)

    @property
    def told(self) -> Told:
        """Returns what this says, to an exit whose store lacks it."""
        lives = [PeerLife(*msgspec.structs.astuple(each)) for each in self.lives]
        return Told(self.figures.totals, lives, CountedUntil(self.until_boot, self.until_ms), self.passed_on)

    @property
    def total_bytes(self) -> int:
        return self.bytes_in + self.bytes_out

    @property
    def month(self) -> str:
        """Returns the month (UTC) in which the session was created, by which digests are compared."""
        return created_in(self.created_at)


class ReportMark(Struct, frozen=True):
    """Says that all of an exit's is reported that happened before `upto` (wall clock, ms), and with which batch.

    `sessions`, `sum_v`: of all its reports; 0: older versions do not tell.
    """

    batch: Annotated[int, Meta(ge=0, le=2**53)]
    mark: Annotated[str, Meta(max_length=32)]
    upto: Instant
    sessions: Count = 0
    sum_v: Count = 0


class Sums(Struct, frozen=True, array_like=True):
    """Sums the reports of the sessions of one month."""

    sessions: int
    sum_v: int
    sum_bytes: int


class Digest(Struct, frozen=True):
    """Answers with the last batch that the hub has of the exit, None: none, and the sums by months."""

    batch: int | None = None
    mark: str = ""
    months: dict[str, Sums] = {}

    @property
    def last_batch(self) -> ReportBatch | None:
        return None if self.batch is None else ReportBatch(self.batch, self.mark)


class UsageRequest(Struct, frozen=True):
    """Asks what the hub was told of the exit's sessions: in batches after `batch`, or of those created in `month`.

    `after`: the last session of the page before.
    """

    batch: Annotated[int, Meta(ge=0, le=2**53)] = 0
    month: Month | None = None
    after: Text = ""


class ToldReport(Struct, frozen=True):
    """Holds one session's report with its id."""

    session: Text
    report: SessionReport


class UsageAnswer(Struct, frozen=True):
    """Answers it, a page at a time, in the order of the sessions' ids. `more`: there are further ones."""

    sessions: tuple[ToldReport, ...] = ()
    more: bool = False


def created_in(created_at: int) -> str:
    return month_of(day_of(created_at))


def subject_of(node: str, session_id: str, epoch: Epoch) -> str:
    """Returns where a session is reported. Each epoch has a subject: the stream keeps the last message of each."""
    return f"{STATE}.{node}.s.{session_id}.{epoch.turn}-{epoch.mark}"


def mark_subject(node: str) -> str:
    return f"{STATE}.{node}.mark"


def session_of(subject: str, node: str) -> str | None:
    """Returns the session that a report on this subject is of; None: it is no report of a session."""
    parts = subject.split(".")
    return parts[4] if len(parts) == 6 and parts[2:4] == [node, "s"] and SESSION.fullmatch(parts[4]) else None


def rates_of(line: ReportedLine) -> Rates | None:
    return None if line.rates is None else Rates(line.rates.currency, line.rates.per_minute, line.rates.per_gib)
