"""The fastest that traffic was seen to move on this exit: how soon an account could run out, at worst."""

from __future__ import annotations

from dataclasses import dataclass, replace

ASSUMED = 125_000_000  # bytes per second, before anything faster is seen: a gigabit link

# Counters come in bursts: what moved in less than this is no rate.
SHORTEST_MS = 100


@dataclass(frozen=True, slots=True)
class Speed:
    """`fastest` in bytes per second; `total` and `boot_ms` are those of the last reading."""

    fastest: int = ASSUMED
    total: int = 0
    boot_ms: int | None = None

    def after(self, total: int, boot_ms: int) -> Speed:
        """With a reading of the exit's total: bytes of all sessions since the process started."""
        fastest = self.fastest
        if self.boot_ms is not None:
            if boot_ms - self.boot_ms < SHORTEST_MS:
                return self
            fastest = max(fastest, (total - self.total) * 1000 // (boot_ms - self.boot_ms))
        return replace(self, fastest=fastest, total=total, boot_ms=boot_ms)

    def ms(self, bytes_: int) -> int:
        """The least time in which so many bytes can move."""
        return max(0, bytes_) * 1000 // self.fastest

    def bytes(self, ms: int) -> int:
        """The most that can move in so much time."""
        return self.fastest * ms // 1000
