"""Counts use in windows: a window opens at the first use after the last one ended, and resets as a whole at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from appliance.domain.tiers import TierLimits

MOST = 2**63 - 1  # the largest INTEGER of SQLite


class Window(Struct, frozen=True, gc=False):
    """Counts use since `opened_at` (ms since the epoch, None if closed); `used` in bytes or ms of session time.

    `since`: when the previous window ended, 0 if there was none. Use before that no longer counts.
    """

    opened_at: int | None = None
    used: int = 0
    since: int = 0


CLOSED = Window()


class Use(Struct, frozen=True, gc=False):
    """Holds what a session used, evenly, from `start_ms` to `end_ms` of the wall clock."""

    total_bytes: int
    time_ms: int
    start_ms: int
    end_ms: int


class Windows(Struct, frozen=True, gc=False):
    """Holds both windows of an account: bytes of both directions, and session time in ms."""

    traffic: Window = CLOSED
    time: Window = CLOSED

    def spend(self, tier: TierLimits, use: Use) -> Windows:
        return Windows(
            spend(self.traffic, tier.bytes_window * 1000, use.total_bytes, use.start_ms, use.end_ms),
            spend(self.time, tier.seconds_window * 1000, use.time_ms, use.start_ms, use.end_ms),
        )


UNUSED = Windows()


def at(window: Window, length_ms: int, now_ms: int) -> Window:
    """Returns the window as of `now_ms`: closed if its end has passed.

    A window that opens more than a whole length from now was opened by a clock that ran far ahead: it is closed too.
    """
    if window.opened_at is not None and window.opened_at - now_ms > length_ms:
        return CLOSED
    return _not_over(window, length_ms, now_ms)


def _not_over(window: Window, length_ms: int, at_ms: int) -> Window:
    if window.opened_at is None or at_ms < window.opened_at + length_ms:
        return window
    return Window(since=window.opened_at + length_ms)


def resets_at(window: Window, length_ms: int, now_ms: int) -> int:
    """Returns when the open window ends or, with none open, when a window opened now would end."""
    current = at(window, length_ms, now_ms)
    return (now_ms if current.opened_at is None else current.opened_at) + length_ms


def spend(window: Window, length_ms: int, amount: int, start_ms: int, end_ms: int) -> Window:
    """Returns the window after `amount` was used, evenly, from `start_ms` to `end_ms`.

    Use after the window's end counts into the next window. Intervals of several sessions overlap, so this one may
    begin before a window that another session opened: use before the previous window's end no longer counts.
    """
    if amount <= 0:
        return window
    current = _not_over(window, length_ms, start_ms)
    opened = start_ms if current.opened_at is None else current.opened_at
    if opened > end_ms:
        opened = start_ms  # the wall clock was set back: no window opens in the future
    since = min(current.since, opened)
    start = max(start_ms, since)
    if start > start_ms:
        amount = _part(amount, start_ms, start, end_ms)
    ended = opened + length_ms
    if end_ms <= ended:
        return Window(opened, min(current.used + amount, MOST), since)
    last = ended + (end_ms - 1 - ended) // length_ms * length_ms
    return Window(last, min(_part(amount, start, last, end_ms), MOST), since=last)


def _part(amount: int, start_ms: int, cut_ms: int, end_ms: int) -> int:
    """Returns the part of `amount` after `cut_ms`."""
    return amount - amount * (cut_ms - start_ms) // (end_ms - start_ms)
