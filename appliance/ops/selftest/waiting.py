"""Asking again until there is an answer, or no time left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def answer_within(seconds: float, ask: Callable[[], T | None], every: float) -> T | None:
    """The first answer of `ask` that is not None; None where there was none in time."""
    deadline = time.monotonic() + seconds
    while (answer := ask()) is None and time.monotonic() < deadline:
        time.sleep(every)
    return answer
