"""Decides what an exit reports of a session after its store went back in time, and which report of two holds. Pure.

A report's figures are totals, kept by epoch: as long as a store goes on from what it reported, the epoch stays, and the
larger figure holds. A store that was restored, or rolled back with its machine, lacks what was reported since.
It reports nothing until a hub has told what that is. A report names the counters from which its figures were made, so
what the counters have moved since then is added, once, in an epoch of a higher turn, which replaces the one before.

For that, what was told of one life of a peer's counters is subtracted from the same life alone, and the kernel marks
none. The life that begins with a session needs no mark: a store has it if it has the session. Each later one begins
because the exit puts the peer again, or finds its counters smaller, and gets a random mark, which is noted in the store
and where no restore reaches (`store.peer_lives`) before the peer is put. So a store that went back learns at its start
which life the counters in the kernel are of. If it is none that the store knows, all of it is new to the store, and
under that mark the hub was told of it, or not. Lives are paired by name whenever the hub tells: until then nothing has
to be guessed, and nothing waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence  # noqa: TC003 (msgspec reads the types of fields)
from typing import TYPE_CHECKING

import msgspec

from appliance.domain.charges import Amount, Charge, charge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from appliance.domain.pricing import Rates


class Epoch(msgspec.Struct, frozen=True, order=True):
    """Names an epoch. The one that replaces it has a higher turn; `mark` is random, for two stores with one past."""

    turn: int = 0
    mark: str = ""


class ReportBatch(msgspec.Struct, frozen=True):
    """Names the last batch of reports of a store: `number` counts up, `mark` is random. Stored before it is sent.

    A store that went back goes on far above all numbers that are known, so that two stores with one past share none.
    """

    number: int = 0
    mark: str = ""


class CountedUntil(msgspec.Struct, frozen=True):
    """Tells up to when session time is counted: CLOCK_BOOTTIME of a boot."""

    boot_id: str = ""
    boot_ms: int = 0


class PeerLife(msgspec.Struct, frozen=True):
    """Holds the last counters of one life of a session's peer: in one boot, on one interface, until it is removed.

    `mark`: random; empty of the life that began with the session, and of those that older versions have noted.
    """

    boot_id: str
    ifindex: int
    rx_bytes: int
    tx_bytes: int
    mark: str = ""


class Totals(msgspec.Struct, frozen=True):
    """Holds what a session has used, in all and by months."""

    amount: Amount = Amount()
    lines: dict[str, Charge] = {}


class Basis(msgspec.Struct, frozen=True):
    """Holds what an epoch began from: what the fleet had been told, and what the store itself had then.

    `own` lacks what was to be reported in addition at once. `lives`: those that the told totals were made from.
    `lost`: of a session that the store has not, the report that was told, as JSON: another hub has to be told it again.
    """

    told: Totals = Totals()
    own: Totals = Totals()
    lives: Sequence[PeerLife] = ()
    lost: str = ""


class Told(msgspec.Struct, frozen=True):
    """Holds what a hub was told of a session last. `lives`: of its peer, as in `OwnSession`, when that was told.

    `passed_on`: the session had ended, and its peer, with its counters, may have become another session's.
    """

    totals: Totals
    lives: Sequence[PeerLife] = ()
    until: CountedUntil = CountedUntil()
    passed_on: bool = False


class OwnSession(msgspec.Struct, frozen=True):
    """Holds what the store has of a session.

    `lives`: each life of its peer, oldest first.
    `reported_ms`, `reported_until`: its time when a report was last made from this store.
    """

    totals: Totals
    lives: Sequence[PeerLife] = ()
    rates: Rates | None = None
    reported_ms: int = 0
    reported_until: CountedUntil = CountedUntil()


NOTHING = Basis()


def went_back(own: ReportBatch, known: ReportBatch | None) -> bool:
    """Tells whether the store lacks reports that a hub has. `known`: the last batch that it has; None: none."""
    if known is None or known.number < own.number:
        return False  # the hub may lack some: a comparison of digests finds that
    return known != own


def after_going_back(own: ReportBatch, known: ReportBatch | None, chance: int) -> ReportBatch:
    """Returns from which batch a store goes on that went back. `chance`: of 32 random bits."""
    return ReportBatch(max(own.number, known.number if known is not None else 0) + 1 + chance, "")


def reported(basis: Basis, own: Totals) -> Totals:
    """Returns the session's totals for the fleet."""
    if basis == NOTHING:
        return own
    lines = dict(basis.told.lines)
    for month, line in own.lines.items():
        new = _minus(line, basis.own.lines.get(month))
        lines[month] = lines[month] + new if month in lines else new
    return Totals(basis.told.amount + _not_below_zero(own.amount - basis.own.amount), lines)


def reported_lives(basis: Basis, own: Iterable[PeerLife]) -> list[PeerLife]:
    """Returns the lives from which the session's totals for the fleet are made."""
    lives = dict(_named(basis.lives))
    for name, life in _named(own):
        was = lives.get(name, life)
        rx, tx = max(was.rx_bytes, life.rx_bytes), max(was.tx_bytes, life.tx_bytes)
        lives[name] = msgspec.structs.replace(life, rx_bytes=rx, tx_bytes=tx)
    return list(lives.values())


def adopted(told: Told, own: OwnSession) -> Basis:
    """Returns what the next epoch of a session begins from, whose store lacks what was told."""
    moved = used_since(told, own)
    amount = own.totals.amount - moved
    lines = dict(own.totals.lines)
    if lines:
        # It moved after the last report, so most of it in the last month.
        last = max(lines)
        lines[last] = _minus(lines[last], charge(own.rates, amount, own.totals.amount))
    return Basis(told.totals, Totals(amount, lines), told.lives)


def used_since(told: Told, own: OwnSession) -> Amount:
    """Returns what is proven to have been used since the last report, and is part of the store's own totals."""
    rx, tx = (0, 0) if told.passed_on else moved_since(told.lives, own.lives)
    total = own.totals.amount
    return Amount(_time_since(told, own), min(rx, total.bytes_in), min(tx, total.bytes_out))


def moved_since(told: Iterable[PeerLife], own: Iterable[PeerLife]) -> tuple[int, int]:
    """Returns how far a peer's counters have moved, through its lives, since they stood as was told.

    A life that is smaller than was told was read before that.
    """
    before = dict(_named(told))
    rx = tx = 0
    for name, life in _named(own):
        was = before.get(name)
        rx += max(0, life.rx_bytes - was.rx_bytes) if was is not None else life.rx_bytes
        tx += max(0, life.tx_bytes - was.tx_bytes) if was is not None else life.tx_bytes
    return rx, tx


def _named(lives: Iterable[PeerLife]) -> Iterator[tuple[tuple[str, int, str, int], PeerLife]]:
    """Yields lives with their names. Those that older versions have noted are told apart by their order."""
    counts = Counter[tuple[str, int, str]]()
    for life in lives:
        name = (life.boot_id, life.ifindex, life.mark)
        yield (*name, counts[name]), life
        counts[name] += 1


def _time_since(told: Told, own: OwnSession) -> int:
    """Returns the session time that certainly passed after the last report.

    No counter proves which part of the time counted since then did: what may have passed before does not count.
    """
    counted_ms = own.totals.amount.time_ms - own.reported_ms
    known_ms = own.reported_until.boot_ms if own.reported_until.boot_id == told.until.boot_id else 0
    return max(0, counted_ms - max(0, told.until.boot_ms - known_ms))


def _minus(line: Charge, less: Charge | None) -> Charge:
    if less is None:
        return line
    return Charge(
        max(0, line.seconds - less.seconds),
        max(0, line.bytes_in - less.bytes_in),
        max(0, line.bytes_out - less.bytes_out),
        None if line.time_millicents is None else max(0, line.time_millicents - (less.time_millicents or 0)),
        None if line.bytes_millicents is None else max(0, line.bytes_millicents - (less.bytes_millicents or 0)),
    )


def _not_below_zero(amount: Amount) -> Amount:
    return Amount(max(0, amount.time_ms), max(0, amount.bytes_in), max(0, amount.bytes_out))


# Folding -------------------------------------------------------------------------------------------


class FoldedFigures(msgspec.Struct, frozen=True):
    """Holds a session's figures as a hub has them. Of what is not a figure, the report of the highest `v` holds."""

    epoch: Epoch
    v: int
    totals: Totals


def folded(known: FoldedFigures | None, new: FoldedFigures) -> FoldedFigures:
    """Returns what holds of two: of two epochs the later one, and in one epoch the larger of each figure."""
    if known is None or known.epoch < new.epoch:
        return new
    if new.epoch < known.epoch:
        return known
    a, b = known.totals.amount, new.totals.amount
    amount = Amount(max(a.time_ms, b.time_ms), max(a.bytes_in, b.bytes_in), max(a.bytes_out, b.bytes_out))
    lines = _larger_lines(known.totals.lines, new.totals.lines)
    return FoldedFigures(known.epoch, max(known.v, new.v), Totals(amount, lines))


def _larger_lines(one: Mapping[str, Charge], other: Mapping[str, Charge]) -> dict[str, Charge]:
    lines = dict(one)
    for month, line in other.items():
        lines[month] = _larger(lines[month], line) if month in lines else line
    return lines


def _larger(one: Charge, other: Charge) -> Charge:
    return Charge(
        max(one.seconds, other.seconds),
        max(one.bytes_in, other.bytes_in),
        max(one.bytes_out, other.bytes_out),
        _larger_cost(one.time_millicents, other.time_millicents),
        _larger_cost(one.bytes_millicents, other.bytes_millicents),
    )


def _larger_cost(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else max(one, other)
