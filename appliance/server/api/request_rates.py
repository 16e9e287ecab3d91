"""Tells whether requests come within a rate: the generic cell rate algorithm, with one number for each key.

https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm, as virtual scheduling.
"""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic
from typing import NamedTuple


class RequestRate(NamedTuple):
    """Allows a burst at once, then one request each `60 / per_minute` seconds."""

    per_minute: int
    burst: int

    @property
    def interval_s(self) -> float:
        return 60 / self.per_minute


class RequestRates:
    """Counts requests by key. Keeps the latest keys, `most` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._used_until: OrderedDict[str | bytes, float] = (
            OrderedDict()
        )  # the time that a key's requests take; oldest first

    def take(self, key: str | bytes, rate: RequestRate) -> float:
        """Counts a request and returns 0, or counts none and returns in how many seconds the rate allows one."""
        now = monotonic()
        until, over_s = self._standing(key, rate, now)
        if over_s > 0:
            return over_s
        if key not in self._used_until and len(self._used_until) >= self._most:
            self._used_until.popitem(last=False)
        self._used_until[key] = until + rate.interval_s
        return 0.0

    def wait_s(self, key: str | bytes, rate: RequestRate) -> float:
        """Returns what `take` would, and counts nothing."""
        _, over_s = self._standing(key, rate, monotonic())
        return max(0.0, over_s)

    def _standing(self, key: str | bytes, rate: RequestRate, now: float) -> tuple[float, float]:
        """Returns until when the key's requests take time, and how much of that is beyond what the burst allows."""
        until = now
        if key in self._used_until:
            self._used_until.move_to_end(key)
            until = max(now, self._used_until[key])
        return until, until - now - (rate.burst - 1) * rate.interval_s
