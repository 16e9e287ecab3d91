"""Decides which of several hubs leads: the one whose accounts the others follow. Pure.

One record says who leads, in which generation, and what a second hub has of its changes. JetStream keeps the record on
a majority of the hubs, and it changes from what was read of it alone. So what is acknowledged rests on no clock:

- A change is acknowledged once a write of the record has been taken that says that a second hub has it. Where another
  hub has begun to lead, that write is refused, however long this one stood still before.
- A hub takes the lead only if it holds what the record says to be kept, so that it has all that was acknowledged.

Clocks say only for how long a hub may take itself for the leader without asking, and when another may try. Each counts
by its own: the leader from when it sent what was taken, the others, for longer, from when they saw the record change.
Where the record cannot be read for a while, they count anew: the leader could not write it either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

BEAT_MS = 1_000  # how often the leader writes the record
LEASE_MS = 4_000
TAKE_MS = 6_000  # unchanged for so long, it is another's to write; clocks that differ by a third make no difference


class Change(msgspec.Struct, frozen=True):
    """Names a change of the accounts: the generation of the hub that told it, its number there and its random mark."""

    gen: int
    rev: int
    mark: str


class LeadRecord(msgspec.Struct, frozen=True):
    """Says who leads. `kept`: the last change that a second hub is known to have, with all before it."""

    hub: str
    gen: int
    kept: Change


@dataclass(frozen=True, slots=True)
class LeadWrite:
    """Holds what is to be written, if the record is of that revision still. `sent_ms`: when it was decided."""

    record: LeadRecord
    revision: int
    sent_ms: int


@dataclass(frozen=True, slots=True)
class Followed:
    """Holds how far a hub has got: the last change that it was told, of which generation.

    `knows`: of a hub that has led that generation, whether a change is among its own; it may have others behind it
    that nobody else was told, also such as came after it was rolled back. Of one that has yielded since, `at` is up to
    where it had all that was acknowledged. `seen`: the newest generation that it knows of, if that is another.
    """

    at: Change
    knows: Callable[[Change], bool] | None = None
    seen: int = 0

    def holds(self, kept: Change) -> bool:
        """Tells whether the hub has that change and all before it.

        Whoever follows a generation has all that was acknowledged in those before it: it is told all that its leader
        has at once, and that had all of it when it began to lead.
        """
        if self.at.gen != kept.gen:
            return self.at.gen > kept.gen
        if self.knows is not None:
            return self.knows(kept)
        return self.at == kept or self.at.rev > kept.rev


class Lead:
    """Is what one hub knows of the lead while it runs: a hub that has just started leads nothing.

    What it reads and writes is told to it in the order in which it asked for it, one at a time. Times are its own.
    """

    def __init__(self, hub: str) -> None:
        self._hub = hub
        self._revision = 0
        self._since_ms: int | None = None  # that the record is as it is
        self._sent_ms = 0  # of the last write that was taken
        self.record: LeadRecord | None = None  # as last read or written
        self.gen: int | None = None  # that this hub leads, whether or not its lease has run out
        self.lacks = False  # what the record says to be kept

    def read(self, record: LeadRecord | None, revision: int, now_ms: int) -> None:
        """Takes notice of the record as it was read."""
        if revision != self._revision or self._since_ms is None:
            self._since_ms = now_ms
        self.record, self._revision = record, revision
        if record is None or (record.hub, record.gen) != (self._hub, self.gen):
            self.gen = None

    def unread(self) -> None:
        """Takes notice that the record could not be read, or that it is not known whether a write was taken."""
        self._since_ms = None

    def wanted(self, followed: Followed, told: Change | None, now_ms: int) -> LeadWrite | None:
        """Returns what this hub should write now. `told`: the most that another hub says to have of this one's changes.

        A record that is not there is not made: whoever makes it decides whose accounts are the fleet's, see `vacancy`.
        """
        record = self.record
        if record is None:
            return None
        self.lacks = not followed.holds(record.kept)
        if self.lacks:
            self.gen = None  # its store was rolled back, with its memory if it led
            return None
        if self.gen is not None:
            kept = told if told is not None and told.gen == self.gen and _newer(told, record.kept) else record.kept
            is_due = kept != record.kept or now_ms - self._sent_ms >= BEAT_MS
            return LeadWrite(LeadRecord(self._hub, self.gen, kept), self._revision, now_ms) if is_due else None
        if not self._is_free(record, now_ms):
            return None
        gen = max(record.gen, followed.at.gen, followed.seen) + 1
        return LeadWrite(LeadRecord(self._hub, gen, record.kept), self._revision, now_ms)

    def _is_free(self, record: LeadRecord, now_ms: int) -> bool:
        # Where the record names this hub, which has been started anew since, nobody else leads.
        return record.hub == self._hub or (self._since_ms is not None and now_ms - self._since_ms >= TAKE_MS)

    def written(self, write: LeadWrite, revision: int) -> None:
        """Takes notice that a write was taken. Of a new generation nothing may be told before it is in the store."""
        self.record, self._revision = write.record, revision
        self.gen, self._sent_ms = write.record.gen, write.sent_ms
        self._since_ms = write.sent_ms

    def leads(self, now_ms: int) -> bool:
        """Tells whether no other hub leads for certain."""
        return self.gen is not None and 0 <= now_ms - self._sent_ms < LEASE_MS

    @property
    def acknowledged(self) -> Change | None:
        """Returns the last change that may be acknowledged, with all before it; None: none of this generation."""
        if self.gen is None or self.record is None or self.record.kept.gen != self.gen:
            return None
        return self.record.kept


def _newer(change: Change, than: Change) -> bool:
    return (change.gen, change.rev) > (than.gen, than.rev)
