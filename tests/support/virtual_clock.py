"""A clock that moves when the test says so."""

from __future__ import annotations

from appliance.domain.clock import Moment

AFTERNOON = 1_790_000_400_000  # 2026-09-21T14:20:00Z


class VirtualClock:
    """`advance` lets time pass, `step` sets the wall clock as NTP or an operator would, `reboot` starts a new boot."""

    def __init__(self, wall_ms: int = AFTERNOON, boot_ms: int = 100_000) -> None:
        self.wall_ms = wall_ms
        self.boot_ms = boot_ms
        self.boots = 1
        self.kept = True  # by a time service: a step is its own

    def now(self) -> Moment:
        return Moment(self.wall_ms, self.boot_ms, f"boot-{self.boots}")

    def synchronised(self) -> bool:
        return self.kept

    def advance(self, seconds: float) -> None:
        self.wall_ms += int(seconds * 1000)
        self.boot_ms += int(seconds * 1000)

    def step(self, seconds: float) -> None:
        self.wall_ms += int(seconds * 1000)

    def reboot(self, seconds: float = 60) -> None:
        """The host is away for `seconds`; its boot clock starts again."""
        self.wall_ms += int(seconds * 1000)
        self.boot_ms = 1000
        self.boots += 1
