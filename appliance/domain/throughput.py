"""Tracks the highest throughput of this exit, to bound how soon an account could exhaust its quota."""

from __future__ import annotations

from dataclasses import dataclass, replace

ASSUMED = 125_000_000  # bytes per second, before anything faster is seen: a gigabit link

# Counters advance in bursts: a shorter interval gives no meaningful rate.
SHORTEST_MS = 100


@dataclass(frozen=True, slots=True)
class Speed:
    """Holds the highest rate (`fastest`, bytes per second) and the last reading (`total`, `boot_ms`)."""

    fastest: int = ASSUMED
    total: int = 0
    boot_ms: int | None = None

    def after(self, total: int, boot_ms: int) -> Speed:
        """Returns the speed updated with a new `total`: bytes of all sessions since the process started."""
        fastest = self.fastest
        if self.boot_ms is not None:
            if boot_ms - self.boot_ms < SHORTEST_MS:
                return self
            fastest = max(fastest, (total - self.total) * 1000 // (boot_ms - self.boot_ms))
        return replace(self, fastest=fastest, total=total, boot_ms=boot_ms)

    def ms(self, bytes_: int) -> int:
        """Returns the least time in which `bytes_` can move."""
        return max(0, bytes_) * 1000 // self.fastest

    def bytes(self, ms: int) -> int:
        """Returns the most bytes that can move in `ms`."""
        return self.fastest * ms // 1000
