"""Some hundreds of requests made from the served document in every test run; `make documented` makes many more.

What the API answers does not depend on the backend: `once`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults import documented

if TYPE_CHECKING:
    from collections.abc import Callable

FEW, SEED = 5, 1
SECONDS = 900


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("examples", [10, pytest.param(60, marks=pytest.mark.long)])
def test_answers_are_as_documented(once: str, show: Callable[[str], None], examples: int) -> None:
    """No fault, no status and no field that the document does not name, whatever is sent, with a token and without."""
    answers = documented.run(examples, SEED, once, seconds=SECONDS - 60)
    show(f"{once}: {sum(answers.values())} answers, by status {dict(sorted(answers.items()))}")
    assert {"200", "201", "400", "401", "404", "405"} <= answers.keys()


@pytest.mark.timeout(SECONDS)
def test_refusals_are_as_documented(once: str, show: Callable[[str], None]) -> None:
    """The same of an exit with small limits: bodies that are too large, a window that is used up, no more sessions, and
    too many requests are answered as the document says."""
    answers = documented.run_limited(FEW, SEED, once, seconds=SECONDS - 60)
    show(f"{once}: {sum(answers.values())} answers, by status {dict(sorted(answers.items()))}")
    assert {"402", "403", "413", "429"} <= answers.keys()
