"""Decides whether a reading of the wall clock is contradicted by the boot clock and by what was known before. Pure.

A wall clock that no time service keeps may be set to anything: by hand, by a hypervisor, by a clock chip whose battery
is empty. CLOCK_BOOTTIME cannot be set, so within one boot it tells how far the wall clock should have come.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance.domain.clock import Moment

# Followed in any case: what a time service that runs corrects is less, and it shifts no expiry, window or retention by
# more than that. Also where the kernel counts a clock as unsynchronised some hours after its time service stopped.
TOLERANCE_MS = 5 * 60_000
# Of small steps together, since the clock was last synchronised, accepted or begun with. An ordinary clock that nothing
# keeps drifts by that in a year.
LARGEST_DRIFT_MS = 3_600_000
# How far a wall clock may be ahead after a reboot: that clock alone tells for how long the host was off. Longer than a
# host is off for ordinary reasons, and far less than history is kept for. A clock chip without power shows years.
LONGEST_OFF_MS = 7 * 24 * 3_600_000

# What an admin can do about it.
SYNCHRONISE = "timedatectl set-ntp true"
ACCEPT = "wg-appliance node resume --accept-clock"


def expected(known: Moment, read: Moment) -> Moment:
    """Returns `read` with the wall time that follows from `known`, a moment whose wall time is believed."""
    return replace(read, wall_ms=expected_ms(known, read))


def expected_ms(known: Moment, read: Moment) -> int:
    """Returns the wall time of `read` that follows from `known`.

    After a reboot that is the least it can be: the host was off for an unknown time. Its uptime says nothing, as the
    store may be from another machine: a backup of an hour ago, brought back on one that has been up for a year.
    """
    return known.wall_ms + (read.boot_ms - known.boot_ms if known.boot_id == read.boot_id else 0)


def contradiction_ms(known: Moment, read: Moment, gone_on: Moment | None = None) -> int:
    """Returns how far the wall clock of `read` is ahead of (or, negative, behind) what it can be; 0: nothing is odd.

    `gone_on`: a moment of this boot to which time has gone on from `known` without the wall clock.
    """
    ahead_ms = read.wall_ms - expected_ms(gone_on or known, read)
    most_ms = TOLERANCE_MS if known.boot_id == read.boot_id else LONGEST_OFF_MS
    return 0 if -TOLERANCE_MS <= ahead_ms <= most_ms else ahead_ms


def drift_ms(settled: Moment, known: Moment, read: Moment) -> int:
    """Returns how far `read` is ahead of `known`, if the small steps since `settled` add up to much; 0: they do not."""
    if settled.boot_id != read.boot_id or known.boot_id != read.boot_id:
        return 0
    if abs(read.wall_ms - expected_ms(settled, read)) <= LARGEST_DRIFT_MS:
        return 0
    return read.wall_ms - expected_ms(known, read)


def in_words(ahead_ms: int) -> str:
    """Says how far a wall clock is off, such as `365 d ahead of` or `90 min behind`, for what it is compared with."""
    minutes = (abs(ahead_ms) + 30_000) // 60_000
    amount = f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} d"
    return f"{amount} {'ahead of' if ahead_ms > 0 else 'behind'}"


def same_setting(one: Moment, other: Moment) -> bool:
    """Tells whether the wall clock was not set between two readings of one boot."""
    return abs(other.wall_ms - expected_ms(one, other)) <= TOLERANCE_MS


def handshake_at(told_ms: int, start_ms: int, now_ms: int) -> int:
    """Returns when a handshake was that was noticed now, and not yet at `start_ms`.

    `told_ms` is by the kernel's wall clock. Where that is not the one believed, the handshake is taken to be now.
    """
    if start_ms - TOLERANCE_MS <= told_ms <= now_ms + TOLERANCE_MS:
        return min(told_ms, now_ms)
    return now_ms
