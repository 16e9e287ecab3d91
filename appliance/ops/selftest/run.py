"""Runs steps in order until one fails, times each, and always cleans up."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.client.signals import Interrupted
from appliance.domain.errors import ApplianceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from appliance.client.signals import Interruption

AGAIN = "run it again"


@dataclass(frozen=True, slots=True)
class Step:
    """A step. `work`: returns a short result, or raises. `advice`: what to try if it fails."""

    name: str
    work: Callable[[], str]
    advice: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """A step's result. `detail`: the result, or why the step failed. `advice`: empty if it passed."""

    step: str
    passed: bool
    seconds: float
    detail: str
    advice: str = ""


def run(steps: Iterable[Step], clear: Step, interruption: Interruption, report: Callable[[Outcome], None]) -> None:
    """Runs the steps. `report`: gets each outcome at once. `clear`: always runs last, and is not interrupted."""
    with interruption.awaited():
        try:
            for step in steps:
                outcome = _take(step, interruption)
                report(outcome)
                if not outcome.passed:
                    break
        finally:
            report(_take(clear, None))


def _take(step: Step, interruption: Interruption | None) -> Outcome:
    start = time.monotonic()
    try:
        if interruption is None:
            detail = step.work()
        else:
            with interruption.allowed():
                detail = step.work()
    except (ApplianceError, OSError) as error:
        return Outcome(step.name, False, time.monotonic() - start, str(error), step.advice)
    except Interrupted as error:
        return Outcome(step.name, False, time.monotonic() - start, str(error), AGAIN)
    return Outcome(step.name, True, time.monotonic() - start, detail)
