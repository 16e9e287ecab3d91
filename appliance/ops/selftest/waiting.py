"""Polls until there is an answer or the time is up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def answer_within(seconds: float, ask: Callable[[], T | None], every: float) -> T | None:
    """Returns the first answer of `ask` that is not None; None if there is none in time."""
    deadline = time.monotonic() + seconds
    while (answer := ask()) is None and time.monotonic() < deadline:
        time.sleep(every)
    return answer
