"""Turns signals into exceptions where the program waits, and defers them where a step or the cleanup must complete."""

from __future__ import annotations

import select
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A program started in the background (`&`, nohup) ignores these; SIGTERM is always meant.
MAY_BE_IGNORED = (signal.SIGINT, signal.SIGHUP)


class InterruptedBySignal(BaseException):
    """Says that a signal has arrived. Not an Exception, like KeyboardInterrupt: no handler of failures may catch it."""


class Interruption:
    """Raises InterruptedBySignal in the main thread, once for all signals that arrived, as soon as that is allowed."""

    def __init__(self, signals: Sequence[signal.Signals] = SIGNALS) -> None:
        self._signals = signals
        self._allowed = False
        self._pending: signal.Signals | None = None
        self._wakeup: socket.socket

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Catches the signals meanwhile; they have no other effect.

        SIGINT and SIGHUP stay ignored if they were (nohup, `&`); SIGTERM never is.
        """
        before = [(number, signal.getsignal(number)) for number in self._signals]
        # A signal may be delivered to another thread than the waiting one; SIGCHLD goes to the thread that forked.
        self._wakeup, notified = socket.socketpair()
        with self._wakeup, notified:
            notified.setblocking(False)
            previous = signal.set_wakeup_fd(notified.fileno(), warn_on_full_buffer=False)
            try:
                for number, handler in before:
                    if not stays_ignored(number, handler):
                        signal.signal(number, self._arrived)
                yield
            finally:
                for number, handler in before:
                    signal.signal(number, handler)
                signal.set_wakeup_fd(previous)

    @contextmanager
    def allowed(self, allowed: bool = True) -> Iterator[None]:
        before, self._allowed = self._allowed, allowed
        try:
            self._raise()
            yield
        finally:
            self._allowed = before
        self._raise()

    def pause(self, seconds: float) -> None:
        """Waits, and may raise InterruptedBySignal or return early. Only valid inside `awaited`."""
        with self.allowed():
            if select.select([self._wakeup], [], [], seconds)[0]:
                self._wakeup.recv(4096)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        self._pending = self._pending or signal.Signals(number)
        self._raise()

    def _raise(self) -> None:
        if self._pending is not None and self._allowed:
            first, self._pending = self._pending, None
            raise InterruptedBySignal(f"interrupted by {first.name}")


def stays_ignored(number: int, handler: object) -> bool:
    """Tells whether a signal with this handler is left alone."""
    return handler is signal.SIG_IGN and number in MAY_BE_IGNORED
