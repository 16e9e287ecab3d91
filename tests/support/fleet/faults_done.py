"""What was done to a fleet under faults, and what was compared; of several fleets it adds up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class FaultsDone:
    """Counts what was done. `happened`: what came of it; `compared`: what was equal at the last comparison.

    `agreed_after_s`: each time, from when all was healed; `history`: when each fault began; `wrong`: what was not as it
    should be, a text for each fleet.
    """

    faults: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    agreed_after_s: list[float] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __add__(self, other: FaultsDone) -> FaultsDone:
        return FaultsDone(
            self.faults + other.faults,
            self.happened + other.happened,
            self.compared + other.compared,
            self.agreed_after_s + other.agreed_after_s,
            self.history + other.history,
            self.wrong + other.wrong,
        )

    def __str__(self) -> str:
        """One line."""
        agreed = sorted(self.agreed_after_s)
        within = f", within {agreed[-1]:.1f} s (median {agreed[len(agreed) // 2]:.1f} s)" if agreed else ""
        return "; ".join(
            [
                f"{self.faults.total()} faults ({_listed(self.faults)})",
                *([_listed(self.happened)] if self.happened else []),
                f"compared {len(agreed)} times{within}: {_listed(self.compared)}",
                f"{len(self.wrong)} fleets DEVIATE" if self.wrong else "0 lost, 0 doubled",
            ]
        )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{many} {what}" for what, many in sorted(counts.items())) or "nothing"
