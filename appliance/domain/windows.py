"""Counts use in windows: a window opens at the first use after the last one ended, and resets as a whole at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    """Holds what a session used: time from `start_ms` to `end_ms` of the wall clock, and bytes, both evenly.

    `moved_ms`, `read_ms`: from when until when the bytes moved; None: as the time.
    """

    total_bytes: int
    time_ms: int
    start_ms: int
    end_ms: int
    moved_ms: int | None = None
    read_ms: int | None = None


class Windows(Struct, frozen=True, gc=False):
    """Holds both windows of an account: bytes of both directions, and session time in ms."""

    traffic: Window = CLOSED
    time: Window = CLOSED

    def spend(self, tier: TierLimits, uses: Sequence[Use]) -> Windows:
        """Returns the windows with these uses counted, which are in the order in which they began."""
        traffic, time = self.traffic, self.time
        # Of uses with bytes, none is from before the wall clock was set: the order of their labels is theirs.
        for use in sorted((use for use in uses if use.total_bytes), key=_moved_ms):
            traffic = spend(traffic, tier.bytes_window * 1000, use.total_bytes, _moved_ms(use), _read_ms(use))
        for use in uses:
            time = spend(time, tier.seconds_window * 1000, use.time_ms, use.start_ms, use.end_ms)
        return Windows(traffic, time)


def _moved_ms(use: Use) -> int:
    return use.start_ms if use.moved_ms is None else use.moved_ms


def _read_ms(use: Use) -> int:
    return use.end_ms if use.read_ms is None else use.read_ms


UNUSED = Windows()


def at(window: Window, length_ms: int, now_ms: int) -> Window:
    """Returns the window as of `now_ms`: closed if its end has passed.

    A window that opens more than a whole length from now was opened by a clock that ran far ahead: it is closed too.
    """
    return _not_over(_not_far_ahead(window, length_ms, now_ms), length_ms, now_ms)


def _not_far_ahead(window: Window, length_ms: int, now_ms: int) -> Window:
    return CLOSED if window.opened_at is not None and window.opened_at - now_ms > length_ms else window


def _not_over(window: Window, length_ms: int, at_ms: int) -> Window:
    if window.opened_at is None or at_ms < window.opened_at + length_ms:
        return window
    return Window(since=window.opened_at + length_ms)


def turns(window: Window, length_ms: int, upto_ms: int) -> bool:
    """Tells whether use up to this instant opens a window: none is open, or the open one is over or ahead of it."""
    return window.opened_at is None or not window.opened_at <= upto_ms <= window.opened_at + length_ms


def resets_at(window: Window, length_ms: int, now_ms: int) -> int:
    """Returns when the open window ends or, with none open, when a window opened now would end."""
    return ends_at(at(window, length_ms, now_ms), length_ms, now_ms)


def ends_at(current: Window, length_ms: int, now_ms: int) -> int:
    """Returns the same of a window that is as of `now_ms`."""
    return (now_ms if current.opened_at is None else current.opened_at) + length_ms


def run_on(window: Window, length_ms: int, start_ms: int, end_ms: int) -> Window:
    """Returns the window as of `end_ms`, where something is used from `start_ms` on, without counting that use yet.

    A window that ends meanwhile is followed at once by the next one. Intervals of several sessions overlap, so this one
    may begin before a window that another session opened.
    """
    current = _not_over(_not_far_ahead(window, length_ms, end_ms), length_ms, start_ms)
    opened = start_ms if current.opened_at is None else current.opened_at
    if opened > end_ms:
        opened = start_ms  # the wall clock was set back: no window opens in the future
    ended = opened + length_ms
    if end_ms <= ended:
        return Window(opened, current.used, min(current.since, opened))
    last = ended + (end_ms - 1 - ended) // length_ms * length_ms
    return Window(last, since=last)


def spend(window: Window, length_ms: int, amount: int, start_ms: int, end_ms: int) -> Window:
    """Returns the window after `amount` was used, evenly, from `start_ms` to `end_ms`.

    Use after the window's end counts into the next window; use before the previous window's end no longer counts.
    """
    if amount <= 0:
        return window
    current = run_on(window, length_ms, start_ms, end_ms)
    if current.since > start_ms:
        amount = _part(amount, start_ms, current.since, end_ms)
    return Window(current.opened_at, min(current.used + amount, MOST), current.since)


def _part(amount: int, start_ms: int, cut_ms: int, end_ms: int) -> int:
    """Returns the part of `amount` after `cut_ms`."""
    return amount - amount * (cut_ms - start_ms) // (end_ms - start_ms)
