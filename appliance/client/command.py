"""Runs a program through the tunnel, with the terminal, the user and the signals that it would have without it."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.client.api.responses import FAILED
from appliance.client.connection import ConnectionOutcome, ended
from appliance.client.signals import SIGNALS, InterruptedBySignal, Interruption, stays_ignored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

    from appliance.client.api.responses import Over
    from appliance.client.sudo_user import Invoker

NOT_FOUND, NOT_EXECUTABLE, BY_SIGNAL = 127, 126, 128  # exit statuses, as those of a shell
ENDING_S = 10.0


def refused(program: str, user: Invoker, environ: Mapping[str, str]) -> ConnectionOutcome | None:
    """Looks for the program as this user, as it will be started. Returns why it cannot be, or None."""
    # As subprocess looks for it.
    places = [program] if "/" in program else [f"{folder}/{program}" for folder in os.get_exec_path(environ)]
    with user.acting():
        found = [_found(Path(place)) for place in places]
    if any(status is None for status in found):
        return None
    status = NOT_EXECUTABLE if NOT_EXECUTABLE in found else NOT_FOUND
    number = errno.EACCES if status == NOT_EXECUTABLE else errno.ENOENT
    return ConnectionOutcome(status, f"{program}: {os.strerror(number)}")


def _found(place: Path) -> int | None:
    """Returns None for a program that this user may execute, else the exit status of what keeps it from that."""
    try:
        mode = place.stat().st_mode
    except PermissionError:
        return NOT_EXECUTABLE
    except (OSError, ValueError):  # a path with NUL
        return NOT_FOUND
    return None if stat.S_ISREG(mode) and os.access(place, os.X_OK, effective_ids=True) else NOT_EXECUTABLE


def run_command(
    start: Callable[[], subprocess.Popen[bytes]],
    watch: Callable[[Interruption, Callable[[], bool]], Over],
    interruption: Interruption,
) -> ConnectionOutcome:
    """Runs the program until it or the session ends. The outcome has the program's exit status; the end of the
    session terminates the program. `interruption`: holds the signals that came before the program was started."""
    exits = Interruption((signal.SIGCHLD,))
    with exits.awaited(), _forwarding_signals() as forward_to:
        try:
            interruption.pause(0)
            process = start()
        except InterruptedBySignal as error:
            return ConnectionOutcome(FAILED, f"{error} before the program was started")
        except OSError as error:
            status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            return ConnectionOutcome(status, f"{error.filename}: {error.strerror}")
        forward_to(process)
        try:
            over = watch(exits, lambda: process.poll() is None)
        except InterruptedBySignal:
            return ConnectionOutcome(_exit_status(process.wait()), of_program=True)
        finally:
            _end(process)
        return ended(over)


@contextmanager
def _forwarding_signals() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """Forwards signals to the program, whose end ends the client. A SIGINT from the terminal has reached it already."""
    running: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def arrived(number: int, _frame: FrameType | None) -> None:
        if not running:
            early.append(number)
        elif not (number == signal.SIGINT and _in_foreground()):
            running[0].send_signal(number)

    def begin(process: subprocess.Popen[bytes]) -> None:
        running.append(process)
        for number in early:
            process.send_signal(number)

    before = [(number, signal.getsignal(number)) for number in SIGNALS]
    for number, handler in before:
        if not stays_ignored(number, handler):
            signal.signal(number, arrived)
    try:
        yield begin
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=ENDING_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _exit_status(code: int) -> int:
    return code if code >= 0 else BY_SIGNAL - code
