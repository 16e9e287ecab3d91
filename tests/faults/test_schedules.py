"""Some hundreds of schedules in every test run; `make faults` runs many more, from a seed of its own."""

from __future__ import annotations

from tests.faults import schedules

SEEDS = range(1000, 1200)


def test_no_schedule_breaks_an_invariant() -> None:
    """Whatever happens, in whichever order: nothing is billed that did not move, and store and tunnel agree at last."""
    with schedules.workplace() as folder:
        ran, steps, failures = schedules.check(SEEDS, folder)
    assert not failures, "\n".join(map(str, failures))
    assert ran == len(SEEDS)
    assert steps > 10 * ran
