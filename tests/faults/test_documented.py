"""Some hundreds of requests made from the served document in every test run; `make documented` makes many more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults import documented

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES, SEED = 60, 1
SECONDS = 900  # an emulated kernel takes its time


@pytest.mark.timeout(SECONDS)
def test_answers_are_as_documented(backend: str, show: Callable[[str], None]) -> None:
    """No fault, no status and no field that the document does not name, whatever is sent, with a token and without."""
    answers = documented.run(EXAMPLES, SEED, backend, seconds=SECONDS - 60)
    show(f"{backend}: {sum(answers.values())} answers, by status {dict(sorted(answers.items()))}")
    assert {"200", "201", "400", "401", "404", "405"} <= answers.keys()
