"""The pytest under a runner for the kernel tests: one that hangs or dies is started anew for the tests it left out."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.figures import FIGURES
from tests.support.kernel import under_runner
from tests.support.kernel.under_runner import UnderRunner
from tests.support.tunnel.waiting import until

PROJECT = Path(__file__).parents[2]
TESTS = """
import pytest
def test_one(): pass
def test_two(): pass
def test_three(): assert not "so"
def test_four(): pytest.skip("why not")
"""
SILENT_S = 8
# Takes what is appended to it as a runner does. As often as told it dies, or is silent with a process in a group of its
# own; the first time it runs the first of the four tests before.
RUNNER = """
import os, subprocess, sys, time
folder, fault, times = sys.argv[1:4]
command = sys.argv[4:]
starts = len(os.listdir(folder))
open(os.path.join(folder, str(starts)), "w").close()
if starts < int(times):
    if starts == 0:
        subprocess.run(command[:-3])
    if fault == "dies":
        sys.exit(125)
    subprocess.run([sys.executable, "-c", "import time; time.sleep(1000)", folder], process_group=0)
    open(os.path.join(folder, "tidied up"), "w").close()
else:
    sys.exit(subprocess.run(command).returncode)
"""


ONE, TWO, THREE, FOUR = (f"test_some.py::test_{number}" for number in ("one", "two", "three", "four"))


class Ground:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._starts = folder / "starts"
        self._starts.mkdir()
        (folder / "test_some.py").write_text(TESTS, encoding="utf-8")
        (folder / "runner.py").write_text(RUNNER, encoding="utf-8")

    def start(self, *, times: int, silent_s: float, fault: str = "hangs") -> UnderRunner:
        runner = shlex.join((sys.executable, str(self._folder / "runner.py"), str(self._starts), fault, str(times)))
        made = UnderRunner(runner, self._folder, (ONE, TWO, THREE, FOUR), silent_s)
        made.start()
        return made

    def starts(self) -> int:
        return len(list(self._starts.glob("[0-9]")))

    def tidied_up(self) -> bool:
        return (self._starts / "tidied up").exists()

    def processes(self) -> list[str]:
        """What still runs of it."""
        listed = subprocess.run(("ps", "-eo", "args"), capture_output=True, text=True, check=True).stdout.splitlines()
        return [line for line in listed if str(self._folder) in line]


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    # The pytest under the runner needs no plugins but ours, and starts in half the time.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setattr(under_runner, "LOOK_EVERY_S", 0.05)
    return Ground(tmp_path)


def test_a_runner_that_hangs_is_started_again_for_the_rest(ground: Ground) -> None:
    """Its processes end, and the tests without a result are run anew, once; where it hung is told."""
    runner = ground.start(times=1, silent_s=SILENT_S)
    found = {test: runner.result(test) for test in (ONE, TWO, THREE, FOUR)}
    runner.close()
    assert [result.outcome for result in found.values()] == ["passed", "passed", "failed", "skipped"]
    assert 'assert not "so"' in found[THREE].text
    assert found[FOUR].text == "Skipped: why not"
    ((name, words),) = found[ONE].figures
    assert (name, "was started again" in str(words)) == (FIGURES, True)
    assert (ground.starts(), ground.tidied_up(), ground.processes()) == (2, True, [])


def test_a_runner_that_always_hangs_is_given_up(ground: Ground) -> None:
    """It is given up, and the tests that were not run have failed and say why."""
    runner = ground.start(times=9, silent_s=2)
    result = runner.result(FOUR)
    runner.close()
    assert result.outcome == "failed"
    assert result.text.startswith("it did not run:")
    assert result.text.endswith("(nothing more for 2 s)")
    assert (ground.starts(), ground.processes()) == (3, [])


def test_a_runner_that_dies_is_started_again_for_the_rest(ground: Ground) -> None:
    """A runner that ends before its tests have results is started again for them."""
    runner = ground.start(times=1, silent_s=1000, fault="dies")
    found = {test: runner.result(test) for test in (ONE, TWO, THREE, FOUR)}
    runner.close()
    assert [result.outcome for result in found.values()] == ["passed", "passed", "failed", "skipped"]
    ((_, words),) = found[ONE].figures
    assert words == "the runner ended after this and was started again"
    assert (ground.starts(), ground.processes()) == (2, [])


def test_a_runner_that_always_dies_is_given_up(ground: Ground) -> None:
    """A runner that always dies is given up."""
    runner = ground.start(times=9, silent_s=1000, fault="dies")
    result = runner.result(FOUR)
    runner.close()
    assert (result.outcome, ground.starts()) == ("failed", 3)


def test_a_runner_that_is_not_wanted_any_more_ends(ground: Ground) -> None:
    """Where the run ends before it asks for results, nothing goes on."""
    runner = ground.start(times=1, silent_s=1000)
    until(ground.starts, "it was started")
    runner.close()
    assert (ground.starts(), ground.processes()) == (1, [])
