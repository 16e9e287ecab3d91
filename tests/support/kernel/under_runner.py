"""The pytest under a runner: what it is started with, what became of its tests, and its end.

An emulated kernel may hang, whatever is run under it: user-mode Linux 6.1 did once in some thirty runs, faulting for
ever on a page of a stack that it was mapping anew. When nothing is heard any more, all of it is ended. Where it hung,
or ended before its time (a kernel may panic), another is started for the tests that have no result yet.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event, Thread
from typing import TYPE_CHECKING

from tests.kernel import alive
from tests.support.figures import FIGURES
from tests.support.kernel import results
from tests.support.kernel.results import Result

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS_FOR_ALL = 4 * 3600  # a runner that hangs is noticed long before; all tests on a busy machine take two hours
SILENT_S = 12 * alive.EVERY_S
LOOK_EVERY_S = 1
STARTS = 3
SECONDS_TO_END = 60
PYTEST = ("-m", "tests.kernel.alive", sys.executable, "-m", "pytest", "-p", "tests.support.kernel.results")
QUIETLY = ("-p", "no:cacheprovider", "--color=no", "-q")


class UnderRunner:
    """It runs beside the tests out here, which wait for it only when they need its results."""

    def __init__(self, runner: str, root: Path, tests: Sequence[str], silent_s: float = SILENT_S) -> None:
        self._command = [*shlex.split(runner), sys.executable, *PYTEST, *QUIETLY]
        self._root = root
        self._tests = tests
        self._silent_s = silent_s
        self._results: dict[str, Result] = {}
        self._said = ""
        self._ending = Event()
        self._thread = Thread(target=self._run_all)

    def start(self) -> None:
        self._thread.start()

    def result(self, test: str) -> Result:
        self._thread.join(timeout=SECONDS_FOR_ALL)
        return self._results.get(test, Result("failed", f"it did not run:\n{self._said}", []))

    def close(self) -> None:
        """Nothing is left of it, where the tests ended before they asked for it."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run_all(self) -> None:
        for _ in range(STARTS):
            left = self._without_result()
            hung = self._run(left)
            if self._ending.is_set() or not self._without_result():
                return
            self._note(left, f"hung after this, silent for {self._silent_s:.0f} s," if hung else "ended after this")

    def _without_result(self) -> list[str]:
        return [test for test in self._tests if test not in self._results]

    def _note(self, begun: Sequence[str], how: str) -> None:
        """Tells what became of the runner beside the last result there is: that is about where it happened."""
        known = [test for test in begun if test in self._results]
        if known:
            last = self._results[known[-1]]
            words = f"the runner {how} and was started again"
            self._results[known[-1]] = Result(last.outcome, last.text, [*last.figures, (FIGURES, words)])

    def _run(self, tests: Sequence[str]) -> bool:
        """Whether it hung."""
        # Without KERNEL_RUNNER, so that a runner without WireGuard is not asked to run itself.
        inside = {key: value for key, value in os.environ.items() if key != "KERNEL_RUNNER"}
        # A file: a pipe that nobody reads would fill up.
        with TemporaryFile() as output:
            process = subprocess.Popen(
                [*self._command, *tests],
                cwd=self._root,
                env=inside,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                hung = self._await(process, output.fileno())
            finally:
                end_session(process)
            output.seek(0)
            self._read(output.read().decode(errors="replace").splitlines())
        if hung:
            self._said += f"\n(nothing more for {self._silent_s:.0f} s)"
        return hung

    def _await(self, process: subprocess.Popen[bytes], output: int) -> bool:
        """Until it has ended, or hangs, or is not wanted any more. Whether it hangs."""
        size, heard_at = 0, time.monotonic()
        while process.poll() is None and not self._ending.wait(LOOK_EVERY_S):
            if (now_size := os.fstat(output).st_size) != size:
                size, heard_at = now_size, time.monotonic()
            elif time.monotonic() - heard_at > self._silent_s:
                return True
        return False

    def _read(self, lines: Sequence[str]) -> None:
        self._results |= results.read(lines)
        self._said = "\n".join(line for line in lines if line != alive.LINE and not line.startswith(results.MARK))


def end_session(process: subprocess.Popen[bytes]) -> None:
    """With all of the session that it began, some of which have process groups of their own. It may tidy up."""
    deadline = time.monotonic() + SECONDS_TO_END
    while process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
        _kill_others(process.pid)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.1)
    _kill_others(process.pid)


def _kill_others(session: int) -> None:
    for pid in set(_of_session(session)) - {session}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _of_session(session: int) -> list[int]:
    return [int(stat.parent.name) for stat in Path("/proc").glob("[0-9]*/stat") if _session(stat) == session]


def _session(stat: Path) -> int:
    """The sixth field of proc(5); 0 where the process has gone."""
    try:
        line = stat.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return int(line.rpartition(")")[2].split()[3])
