"""A search of so many schedules from a seed, and what it ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.support.faults import schedules

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.faults.schedules import Schedule


@dataclass
class Ran:
    schedules: int = 0
    steps: int = 0


def search(many: int, seed: int, folder: Path) -> Ran:
    """Raises what the first schedule that breaks an invariant raises, with the shortest schedule that does in a note.

    Nothing is kept from search to search: a seed draws the same schedules on every machine.
    """
    ran = Ran()

    @hypothesis.seed(seed)
    @settings(
        max_examples=many,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(schedules.drawn())
    def one(schedule: Schedule) -> None:
        ran.schedules += 1
        ran.steps += len(schedule.steps)
        schedules.run(schedule, folder)

    one()
    return ran
