"""Some schedules in every test run; `make faults` runs many more, from a seed of its own."""

from __future__ import annotations

import pytest

from tests.support.faults import schedules
from tests.support.faults.searching import search

SEED = 1


@pytest.mark.timeout(900)  # 300 take a minute where nothing else runs
@pytest.mark.parametrize("many", [60, pytest.param(300, marks=pytest.mark.long)])
def test_no_schedule_breaks_an_invariant(many: int) -> None:
    """Whatever happens, in whichever order: nothing is billed that did not move, and store and tunnel agree at last."""
    with schedules.workplace() as folder:
        ran = search(many, SEED, folder)
    assert ran.schedules >= many
    assert ran.steps > 10 * many
