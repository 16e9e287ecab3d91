"""Runs steps one after another until one fails, times each, and clears up whatever happened."""

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
    """`work` says in a few words what it found, or raises; `advice` is what to try then."""

    name: str
    work: Callable[[], str]
    advice: str


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """`detail`: what was found, or why the step failed. `advice` is empty where it passed."""

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
    """`report` gets each outcome as soon as it is there. `clear` comes last, always, and nothing interrupts it."""
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
