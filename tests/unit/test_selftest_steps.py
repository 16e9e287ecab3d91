"""Steps run until one fails or is interrupted; what was made is cleared whatever happened."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from appliance.client.signals import SIGNALS, InterruptedBySignal, Interruption
from appliance.domain.errors import HostError
from appliance.ops.selftest.run import SelfTestStep, StepOutcome, run

if TYPE_CHECKING:
    from collections.abc import Callable


def step(name: str, work: Callable[[], str] = lambda: "found") -> SelfTestStep:
    return SelfTestStep(name, work, "advice")


def failing(error: BaseException) -> Callable[[], str]:
    def work() -> str:
        raise error

    return work


def outcomes(*steps: SelfTestStep, clear: SelfTestStep, interruption: Interruption | None = None) -> list[StepOutcome]:
    found: list[StepOutcome] = []
    run(steps, clear, interruption or Interruption(), found.append)
    return found


def interrupted(number: signal.Signals) -> str:
    os.kill(os.getpid(), number)
    time.sleep(30)  # a step that takes long; the signal is handled at once
    return "not reached"


def test_each_step_has_one_outcome_in_order() -> None:
    """One outcome a step, in order, with what was found; the clearing comes last."""
    found = outcomes(step("one"), step("two"), clear=step("cleared"))
    assert [(o.step, o.passed, o.detail, o.advice) for o in found] == [
        (name, True, "found", "") for name in ("one", "two", "cleared")
    ]


def test_nothing_after_a_failure_but_the_clearing() -> None:
    """The step that failed says why and what to try; those after it are not run."""
    found = outcomes(step("one", failing(HostError("no"))), step("two"), clear=step("cleared"))
    assert [(o.step, o.passed, o.detail, o.advice) for o in found] == [
        ("one", False, "no", "advice"),
        ("cleared", True, "found", ""),
    ]


def test_a_defect_is_cleared_up_after_too() -> None:
    """An error that no step foresees goes on to the caller, after the clearing."""
    cleared: list[str] = []
    with pytest.raises(ZeroDivisionError):
        outcomes(step("one", failing(ZeroDivisionError())), clear=step("cleared", lambda: cleared.append("x") or ""))
    assert cleared


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_step(number: signal.Signals) -> None:
    """The step fails at once and names the signal; handlers are as before afterwards."""
    before = signal.getsignal(number)
    found = outcomes(step("one", lambda: interrupted(number)), step("two"), clear=step("cleared"))
    assert [(o.step, o.passed) for o in found] == [("one", False), ("cleared", True)]
    assert found[0].detail == f"interrupted by {number.name}"
    assert signal.getsignal(number) is before


def test_the_clearing_is_not_interrupted() -> None:
    """A second Ctrl-C does not leave half of it behind."""

    def clear() -> str:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # a signal would be handled in here
        return "cleared all the same"

    found = outcomes(step("one", lambda: interrupted(signal.SIGINT)), clear=step("cleared", clear))
    assert found[-1] == StepOutcome("cleared", True, found[-1].seconds, "cleared all the same")


def test_what_must_not_stop_half_way_does_not() -> None:
    """A signal waits for the end of such a part, and ends the step then."""
    interruption, done = Interruption(), []

    def work() -> str:
        with interruption.allowed(False):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            done.append("the part")
        done.append("after it")
        return "not reached"

    found = outcomes(step("one", work), clear=step("cleared"), interruption=interruption)
    assert done == ["the part"]
    assert not found[0].passed


def test_interrupted_is_no_error_of_a_step() -> None:
    """`except Exception` in what a step calls does not swallow it."""
    assert not issubclass(InterruptedBySignal, Exception)
