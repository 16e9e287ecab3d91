"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

# Generous on purpose: an emulated kernel with one processor is many times slower than a host.
READY_SECONDS = 90.0
TRANSFER_SECONDS = 400.0

T = TypeVar("T")


def until(probe: Callable[[], T], what: str, seconds: float = READY_SECONDS, every: float = 0.1) -> T:
    """Ask `probe`, `every` so many seconds, until it answers something true and return that.

    Raises:
        TimeoutError: naming `what` and the last answer, when `seconds` have passed.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            message = f"not within {seconds:.0f} s: {what} (last answer: {answer!r})"
            raise TimeoutError(message)
        time.sleep(every)


def last_answer(read: Callable[[], T], wanted: T, seconds: float = READY_SECONDS) -> T:
    """Ask `read` until it answers `wanted`, and return its last answer: for an assertion that shows the difference.

    It does not ask once more after that: what is read may change again at any time.
    """
    seen: list[T] = []

    def is_wanted() -> bool:
        seen.append(read())
        return seen[-1] == wanted

    with suppress(TimeoutError):  # the caller's assertion says more
        until(is_wanted, "the answer that is wanted", seconds)
    return seen[-1]


def standing_still(read: Callable[[], int]) -> int:
    """What `read` answers once it answers the same ten times running (a second and more)."""
    seen: list[int] = []

    def still() -> bool:
        seen.append(read())
        return len(seen) >= 10 and len(set(seen[-10:])) == 1

    until(still, "a counter stands still")
    return seen[-1]
