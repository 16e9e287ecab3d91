"""Computes when a session's tunnel can carry: from a handshake on, until WireGuard no longer uses its keys. Pure.

Session time is this time, and no other: a file that was never used, or a laptop that is shut, costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from appliance.domain.clock import Moment

# REJECT_AFTER_TIME of the WireGuard protocol (whitepaper, section 6.1): after it, keys carry nothing.
REJECT_AFTER_MS = 180_000


class Span(NamedTuple):
    """Holds a time in which a tunnel can carry: ms of CLOCK_BOOTTIME."""

    from_ms: int
    until_ms: int


def shaken_between(told_ms: int, before: Moment, now: Moment, after_ms: int = 0) -> Span:
    """Returns the first and the last instant (CLOCK_BOOTTIME) at which a handshake can have been.

    It was after `before`, and not after `now`. `told_ms` is when it was by the wall clock, which may have been set
    meanwhile: counted back from the end and on from the beginning, it then gives two instants, or impossible ones.
    If `before` is of another boot, there is one instant, which proves nothing. `after_ms`: it was after that as well.
    """
    if before.boot_id != now.boot_id:
        return Span(min(after_ms, now.boot_ms), now.boot_ms)
    first_ms = min(max(before.boot_ms, after_ms), now.boot_ms)
    instants = (now.boot_ms - (now.wall_ms - told_ms), before.boot_ms + (told_ms - before.wall_ms))
    if not all(first_ms <= at_ms <= now.boot_ms for at_ms in instants):
        return Span(first_ms, now.boot_ms)
    return Span(min(instants), max(instants))


def shaken_by_clocks(told_ms: int, known: Moment, now: Moment) -> Span:
    """Returns from when a handshake can let a tunnel carry, and from when its time counts, which is not before `known`.

    It may have been before `known`, the last heartbeat. `told_ms` is when it was by the wall clock; where that was set
    meanwhile, it may have been at the earlier one of two instants. Of another boot than `known`, nothing is proven.
    """
    if known.boot_id != now.boot_id:
        return shaken_between(told_ms, known, now)
    instants = (now.boot_ms - (now.wall_ms - told_ms), known.boot_ms + (told_ms - known.wall_ms))
    first_ms, last_ms = (max(0, min(at_ms, now.boot_ms)) for at_ms in (min(instants), max(instants)))
    return Span(first_ms, max(last_ms, min(known.boot_ms, now.boot_ms)))


def extended(spans: Sequence[Span], span: Span) -> tuple[Span, ...]:
    """Returns the spans with a later one, of which overlapping time is counted once."""
    if span.until_ms <= span.from_ms:
        return tuple(spans)
    if spans and span.from_ms <= spans[-1].until_ms:
        last = spans[-1]
        return (*spans[:-1], Span(last.from_ms, max(last.until_ms, span.until_ms)))
    return (*spans, span)


def between(spans: Iterable[Span], from_ms: int, until_ms: int) -> list[Span]:
    """Returns what of the spans is between two instants."""
    cut = (Span(max(s.from_ms, from_ms), min(s.until_ms, until_ms)) for s in spans)
    return [s for s in cut if s.from_ms < s.until_ms]
