"""Runs steps in order until one fails, times each, and always cleans up."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.client.signals import InterruptedBySignal
from appliance.domain.errors import ApplianceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from appliance.client.signals import Interruption

AGAIN = "run it again"


@dataclass(frozen=True, slots=True)
class SelfTestStep:
    """Describes a step. `work`: returns a short result, or raises. `advice`: what to try if it fails."""

    name: str
    work: Callable[[], str]
    advice: str


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """Holds a step's result. `detail`: the result, or why the step failed. `advice`: empty if it passed."""

    step: str
    passed: bool
    seconds: float
    detail: str
    advice: str = ""


def run(
    steps: Iterable[SelfTestStep],
    clear: SelfTestStep,
    interruption: Interruption,
    report: Callable[[StepOutcome], None],
) -> None:
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


def _take(step: SelfTestStep, interruption: Interruption | None) -> StepOutcome:
    start = time.monotonic()
    try:
        if interruption is None:
            detail = step.work()
        else:
            with interruption.allowed():
                detail = step.work()
    except (ApplianceError, OSError) as error:
        return StepOutcome(step.name, False, time.monotonic() - start, str(error), step.advice)
    except InterruptedBySignal as error:
        return StepOutcome(step.name, False, time.monotonic() - start, str(error), AGAIN)
    return StepOutcome(step.name, True, time.monotonic() - start, detail)
