"""The host's clocks, as the test moves them."""

from __future__ import annotations

from appliance.domain.clock import Moment


class Host:
    """`ran_ms` is all the time that the host was up, over all its boots: what nobody may be billed more than."""

    def __init__(self, wall_ms: int) -> None:
        self.wall_ms = wall_ms
        self.boot_ms = 5_000
        self.ran_ms = 0
        self.boots = 1
        self.stepped = False
        self.kept = True  # by a time service: a step is its own
        self._booted_at_ran: dict[str, int] = {"boot-1": -5_000}

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boots}"

    def now(self) -> Moment:
        return Moment(self.wall_ms, self.boot_ms, self.boot_id)

    def synchronised(self) -> bool:
        return self.kept

    @property
    def booted_at(self) -> int:
        """`ran_ms` when this boot began."""
        return self._booted_at_ran[self.boot_id]

    def run(self, ms: int) -> None:
        self.wall_ms += ms
        self.boot_ms += ms
        self.ran_ms += ms

    def step(self, ms: int) -> None:
        """The wall clock alone is set."""
        self.wall_ms += ms
        self.stepped = True

    def reboot(self, away_ms: int) -> None:
        self.wall_ms += away_ms
        self.boot_ms = 0
        self.boots += 1
        self._booted_at_ran[self.boot_id] = self.ran_ms

    def ran_at(self, boot_id: str, boot_ms: int) -> int:
        return self._booted_at_ran[boot_id] + boot_ms
