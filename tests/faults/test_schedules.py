"""Some hundreds of schedules in every test run; `make faults` runs many more, from a seed of its own."""

from __future__ import annotations

from tests.faults import schedules
from tests.faults.searching import search

MANY = 300
SEED = 1


def test_no_schedule_breaks_an_invariant() -> None:
    """Whatever happens, in whichever order: nothing is billed that did not move, and store and tunnel agree at last."""
    with schedules.workplace() as folder:
        ran = search(MANY, SEED, folder)
    assert ran.schedules >= MANY
    assert ran.steps > 10 * MANY
