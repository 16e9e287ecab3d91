"""Measures time on CLOCK_BOOTTIME and labels it by the wall clock.

CLOCK_BOOTTIME counts suspend and never steps; its readings compare only within one boot. The wall clock labels
moments and opens windows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Moment:
    """Holds one reading of both clocks: `wall_ms` since the epoch (UTC), `boot_ms` since the boot named `boot_id`."""

    wall_ms: int
    boot_ms: int
    boot_id: str


TIME_ERROR = 5  # linux/timex.h
TIMEX_SIZE = 512  # struct timex has 208 bytes; all zero, it only queries


class Clock(Protocol):
    def now(self) -> Moment: ...


@lru_cache(maxsize=2048)
def rfc3339(wall_ms: int) -> str:
    """Formats whole seconds, UTC, with a Z. Cached: responses repeat the same few moments."""
    # Takes a fifth of strftime's time; each response has several.
    return datetime.fromtimestamp(wall_ms // 1000, UTC).isoformat()[:-6] + "Z"


def rfc3339_end(wall_ms: int) -> str:
    """Formats an end, rounded up: the first whole second at which it has passed."""
    return rfc3339(wall_ms + 999)


class HostClock:
    """Reads the host's clocks."""

    def __init__(self) -> None:
        # https://docs.kernel.org/admin-guide/sysctl/kernel.html#random: a UUID made once a boot.
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

    def now(self) -> Moment:
        return Moment(
            wall_ms=time.time_ns() // 1_000_000,
            boot_ms=time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000,
            boot_id=self._boot_id,
        )

    def kernel_synchronised(self) -> bool | None:
        """Tells whether a time service keeps the wall clock synchronised: adjtimex(2). None: it may not be asked here.

        The kernel reports it as unsynchronised until a time service sets it, when it is set in any other way, and some
        hours after that service stopped.
        """
        import ctypes

        answer = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_SIZE))
        return None if answer < 0 else bool(answer != TIME_ERROR)

    def synchronised(self) -> bool:
        """Tells whether the kernel says so; one that may not be asked counts as unsynchronised."""
        return bool(self.kernel_synchronised())
