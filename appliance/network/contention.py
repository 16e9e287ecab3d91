"""Notices that another program keeps undoing a repair, and says how long the next one has to wait. Pure."""

from __future__ import annotations

from collections import deque

MANY, WITHIN_S = 5, 10.0  # repairs of one thing, from which on it is a contention
FIRST_S, LONGEST_S = 0.25, 2.0  # between two repairs; doubled each time
QUIET_S = 10.0  # without a further repair it is over


class Contention:
    """Counts the repairs of one thing. Times are of any clock that does not go back."""

    def __init__(self) -> None:
        self._repairs = deque[float](maxlen=MANY)
        self._pause_s = 0.0

    @property
    def on(self) -> bool:
        return self._pause_s > 0

    def repaired(self, now: float) -> bool:
        """Notes a repair. Returns whether a contention begins with it."""
        self._repairs.append(now)
        if self.on:
            self._pause_s = min(self._pause_s * 2, LONGEST_S)
            return False
        if len(self._repairs) == MANY and now - self._repairs[0] <= WITHIN_S:
            self._pause_s = FIRST_S
        return self.on

    def wait_s(self, now: float) -> float:
        """Returns how long the next repair has to wait; 0 without a contention."""
        return max(0.0, self._repairs[-1] + self._pause_s - now) if self.on else 0.0

    def ended(self, now: float) -> bool:
        """Returns whether a contention is over now, once."""
        over = self.on and now - self._repairs[-1] >= self._pause_s + QUIET_S
        if over:
            self._repairs.clear()
            self._pause_s = 0.0
        return over
