"""Ctrl-C and SIGTERM end the step that runs; not what must not stop half-way, and not the clearing up."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Like KeyboardInterrupt no Exception: nothing may take it for a failure of its own."""


class Interruption:
    """Raises Interrupted in the main thread, once: for the first signal, as soon as that is allowed."""

    def __init__(self) -> None:
        self._allowed = False
        self._first: signal.Signals | None = None
        self._raised = False

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Signals come here, and have no other effect."""
        before = [(number, signal.signal(number, self._arrived)) for number in SIGNALS]
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    @contextmanager
    def allowed(self, allowed: bool = True) -> Iterator[None]:
        before, self._allowed = self._allowed, allowed
        self._raise()
        try:
            yield
        finally:
            self._allowed = before
        self._raise()

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        self._first = self._first or signal.Signals(number)
        self._raise()

    def _raise(self) -> None:
        if self._first is not None and self._allowed and not self._raised:
            self._raised = True
            raise Interrupted(f"interrupted by {self._first.name}")
