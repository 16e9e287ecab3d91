"""Turns signals into exceptions where the program waits, and defers them where a step or the cleanup must complete."""

from __future__ import annotations

import select
import signal
import socket
import threading
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
        self._patience_s: float | None = None
        self._reminder: threading.Timer | None = None
        self._wakeup: socket.socket

    @contextmanager
    def awaited(self, *, ignored_afterwards: bool = False) -> Iterator[None]:
        """Catches the signals meanwhile; they have no other effect.

        SIGINT and SIGHUP stay ignored if they were (nohup, `&`); SIGTERM never is. `ignored_afterwards`: all has been
        undone and the process is about to end, which one more Ctrl-C may not change into a death by a signal.
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
                    signal.signal(number, signal.SIG_IGN if ignored_afterwards else handler)
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

    @contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """Lets a signal through `seconds` after it has arrived, or as soon as another one follows.

        For requests whose answer must not be lost: a session that was opened, and is unknown here, cannot be closed.
        """
        before, self._patience_s = self._patience_s, seconds
        try:
            if self._pending is not None:
                self._remind(self._pending, seconds)
            yield
        finally:
            self._patience_s = before
            if self._reminder is not None:
                self._reminder.cancel()
                self._reminder = None

    def pause(self, seconds: float) -> None:
        """Waits, and may raise InterruptedBySignal or return early. Only valid inside `awaited`."""
        with self.allowed():
            if select.select([self._wakeup], [], [], seconds)[0]:
                self._wakeup.recv(4096)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        is_first, self._pending = self._pending is None, self._pending or signal.Signals(number)
        if self._patience_s is None or self._allowed:
            self._raise()
        elif is_first:
            self._remind(self._pending, self._patience_s)
        else:
            self._raise(now=True)

    def _remind(self, number: signal.Signals, seconds: float) -> None:
        """Sends the signal once more, later: the second one ends the wait. Only a signal wakes the main thread."""
        self._reminder = threading.Timer(seconds, signal.pthread_kill, (threading.main_thread().ident, number))
        self._reminder.daemon = True
        self._reminder.start()

    def _raise(self, *, now: bool = False) -> None:
        if self._pending is not None and (now or self._allowed):
            first, self._pending = self._pending, None
            raise InterruptedBySignal(f"interrupted by {first.name}")


def stays_ignored(number: int, handler: object) -> bool:
    """Tells whether a signal with this handler is left alone."""
    return handler is signal.SIG_IGN and number in MAY_BE_IGNORED
