"""Waits for a blocking call no longer than a deadline, and not at all once a signal handler raises."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

HEARING_S = 0.2  # a signal may reach another thread: its handler runs when this one wakes


def within(seconds: float, work: Callable[[], T], break_off: Callable[[], None]) -> T:
    """Runs `work` in a thread of its own and returns its result, or raises its exception.

    A timeout of sockets is no deadline: each byte begins it anew, and getaddrinfo(3) has none and hears no signal.
    `break_off` makes an abandoned `work` end soon. Raises TimeoutError when the time is over.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 (raised again by the thread that waits)
            errors.append(error)
        finally:
            done.set()

    try:
        threading.Thread(target=run, name="request", daemon=True).start()
        if not any(done.wait(min(HEARING_S, seconds)) for _ in range(math.ceil(seconds / HEARING_S))):
            raise TimeoutError(f"no whole answer within {seconds:g} s")
    except BaseException:
        break_off()
        raise
    if errors:
        raise errors[0]
    return results[0]
