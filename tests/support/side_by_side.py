"""A program: `python -m tests.support.side_by_side COMMAND... --beside COMMAND...` runs commands at the same time.

What the first one prints is seen as it comes, what the others print once all have ended. The status is the first that
is not 0. A signal ends all of them, as Ctrl-C would; and whatever ends them, no process of theirs is left.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

BESIDE = "--beside"
SECONDS_TO_END = 90
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class Command:
    """In a session of its own: a Ctrl-C comes to it from here, once."""

    def __init__(self, words: Sequence[str], *, seen: bool) -> None:
        self.words = shlex.join(words)
        self.output = output = None if seen else TemporaryFile()  # noqa: SIM115 - read at the end of all
        self.process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output and subprocess.STDOUT, start_new_session=True
        )

    def running(self) -> bool:
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """To all that is not in a process group of its own, as a terminal does."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def show(self) -> None:
        """What it has printed, where that has not been seen yet."""
        if self.output is not None:
            _say(self.words)
            self.output.seek(0)
            sys.stdout.buffer.write(self.output.read())
            sys.stdout.flush()


class Ended:
    """Whether a signal asked for the end, and when; it asks once."""

    def __init__(self) -> None:
        self.at: float | None = None
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            # One that is ignored (nohup) stays so; SIGTERM is meant for us.
            if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._arrived)

    def _arrived(self, _number: int, _frame: object) -> None:
        self.at = self.at or time.monotonic()


def run(commands: Sequence[Sequence[str]]) -> int:
    # Processes that lose their parent come to this one.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ended = Ended()
    began = [Command(words, seen=place == 0) for place, words in enumerate(commands)]
    try:
        _await(began, ended)
    finally:
        for each in began:
            each.send(signal.SIGKILL)
            each.process.wait()
        _kill_what_is_left()
    for each in began:
        each.show()
    return next((each.process.returncode for each in began if each.process.returncode), 130 if ended.at else 0)


def _await(commands: Sequence[Command], ended: Ended) -> None:
    told = waiting = False
    while any(each.running() for each in commands):
        time.sleep(0.1)
        if ended.at is not None and not told:
            told = True
            for each in commands:
                each.send(signal.SIGINT)
        if ended.at is not None and time.monotonic() > ended.at + SECONDS_TO_END:
            return
        if not waiting and not commands[0].running():
            waiting = True
            for each in commands[1:]:
                if each.running():
                    _say(f"still running: {each.words}")


def _kill_what_is_left() -> None:
    """Children that end leave us theirs: until there are none."""
    while True:
        for pid in _children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The fourth field of proc(5) is the parent.
            if int(status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(status.parent.name))
    return found


def _say(words: str) -> None:
    sys.stdout.write(f"\n{words}\n")
    sys.stdout.flush()


def _split(words: Sequence[str]) -> list[list[str]]:
    commands: list[list[str]] = [[]]
    for word in words:
        if word == BESIDE:
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


if __name__ == "__main__":
    sys.exit(run(_split(sys.argv[1:])))
