"""Usage windows: one opens at the first use after the last one ended, and resets all at once when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from appliance.domain.tiers import TierLimits

MOST = 2**63 - 1  # what an INTEGER of SQLite holds


class Window(Struct, frozen=True, gc=False):
    """`opened_at` in ms since the epoch, None while none is open; `used` in bytes, or in ms of session time.

    `since`: when the window before ended, 0 where there was none. What came before that is over.
    """

    opened_at: int | None = None
    used: int = 0
    since: int = 0


CLOSED = Window()


class Use(Struct, frozen=True, gc=False):
    """What a session used from `start_ms` to `end_ms` of the wall clock, evenly."""

    total_bytes: int
    time_ms: int
    start_ms: int
    end_ms: int


class Windows(Struct, frozen=True, gc=False):
    """Both windows of an account: bytes of both directions, and session time in ms."""

    traffic: Window = CLOSED
    time: Window = CLOSED

    def spend(self, tier: TierLimits, use: Use) -> Windows:
        return Windows(
            spend(self.traffic, tier.bytes_window * 1000, use.total_bytes, use.start_ms, use.end_ms),
            spend(self.time, tier.seconds_window * 1000, use.time_ms, use.start_ms, use.end_ms),
        )


UNUSED = Windows()


def at(window: Window, length_ms: int, now_ms: int) -> Window:
    """The window as it is at `now_ms`: one whose end has come is over.

    One that opens later than a whole window from now was opened by a clock that was far ahead: none is open.
    """
    if window.opened_at is not None and window.opened_at - now_ms > length_ms:
        return CLOSED
    return _not_over(window, length_ms, now_ms)


def _not_over(window: Window, length_ms: int, at_ms: int) -> Window:
    if window.opened_at is None or at_ms < window.opened_at + length_ms:
        return window
    return Window(since=window.opened_at + length_ms)


def resets_at(window: Window, length_ms: int, now_ms: int) -> int:
    """When the open window ends; with none open, when one opened now would."""
    current = at(window, length_ms, now_ms)
    return (now_ms if current.opened_at is None else current.opened_at) + length_ms


def spend(window: Window, length_ms: int, amount: int, start_ms: int, end_ms: int) -> Window:
    """The window after `amount` was used, evenly, from `start_ms` to `end_ms`.

    What falls behind the window's end counts into the next one. Intervals of several sessions overlap, so this one
    may begin before a window that another has opened: what came before the end of the one before is over.
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
    """What of `amount` falls behind `cut_ms`."""
    return amount - amount * (cut_ms - start_ms) // (end_ms - start_ms)
