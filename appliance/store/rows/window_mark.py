"""Sums what an account's sessions have run since one instant: since its window began."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable


class WindowMark(Struct, gc=False):
    """Holds an instant (ms of CLOCK_BOOTTIME), how many sessions were last counted before it, and up to when the others
    were counted, all added."""

    at_ms: int
    before: int = 0
    after_ms: int = 0

    @classmethod
    def of(cls, at_ms: int, counted_until_ms: Iterable[int]) -> WindowMark:
        """Returns a mark of sessions that were counted up to these instants."""
        mark = cls(at_ms)
        for until_ms in counted_until_ms:
            mark.add(until_ms)
        return mark

    def add(self, counted_until_ms: int) -> None:
        """Adds a session."""
        if counted_until_ms < self.at_ms:
            self.before += 1
        else:
            self.after_ms += counted_until_ms

    def remove(self, counted_until_ms: int) -> None:
        """Removes a session."""
        if counted_until_ms < self.at_ms:
            self.before -= 1
        else:
            self.after_ms -= counted_until_ms

    def ran_ms(self, at_ms: int, sessions: int, now_ms: int) -> int:
        """Returns how long so many sessions, all that were added, have run from `at_ms` on: the mark, or beside it."""
        return self.before * (now_ms - at_ms) + (sessions - self.before) * now_ms - self.after_ms
