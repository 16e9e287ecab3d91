"""Tests that need the kernel's WireGuard, on a machine whose kernel has it or under a runner that brings one.

Where `ip link add type wireguard` works, they simply run. Else, if KERNEL_RUNNER is set (the beginning of a
command line, to which a command is appended), the first of them starts ONE pytest under that runner for all that
were selected; each then reports what became of it in there. With neither, they are skipped, and say so.

Tests elsewhere that ask for the fixture `backend` take whichever WireGuard there is. Under a runner they run
twice: out here on wireguard-go, and once more, as `NAME under the kernel`, in the inner pytest.

The inner pytest tells results by lines in its output (results.py): a runner gives that back and nothing else, as
what is written under it may not outlive it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel import results
from tests.kernel.results import Result
from tests.real_backend import kernel_makes_wireguard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SECONDS_FOR_ALL = 4600
QUIETLY = ("-p", "no:cacheprovider", "--color=no", "-q")
HERE = Path(__file__).parent
REASON = (
    "NOT TESTED: this kernel makes no WireGuard interfaces (or this is not root), and KERNEL_RUNNER names no "
    "command that runs one under a kernel that does"
)


class UnderRunner:
    """The one inner pytest, started when the first result is asked for."""

    def __init__(self, runner: str, root: Path, tests: Sequence[str]) -> None:
        pytest_command = [sys.executable, "-m", "pytest", "-p", "tests.kernel.results", *QUIETLY]
        self._command = [*shlex.split(runner), *pytest_command, *tests]
        self._root = root
        self._results: Mapping[str, Result] | None = None

    def result(self, test: str) -> Result:
        if self._results is None:
            self._results = self._run()
        return self._results.get(test, Result("failed", f"it did not run:\n{self._output}", []))

    def _run(self) -> Mapping[str, Result]:
        # Without KERNEL_RUNNER, so that a runner without WireGuard is not asked to run itself.
        inside = {key: value for key, value in os.environ.items() if key != "KERNEL_RUNNER"}
        done = subprocess.run(
            self._command,
            cwd=self._root,
            env=inside,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=SECONDS_FOR_ALL,
        )
        lines = done.stdout.decode(errors="replace").splitlines()
        self._output = "\n".join(line for line in lines if not line.startswith(results.MARK))
        return dict(results.read(lines))


class TestUnderRunner(pytest.Item):
    """Stands for a test and reports what became of it under the runner."""

    inner: UnderRunner
    inner_nodeid: str

    def runtest(self) -> None:
        result = self.inner.result(self.inner_nodeid)
        self.user_properties.extend(result.figures)
        if result.outcome == "skipped":
            pytest.skip(result.text)
        if result.outcome != "passed":
            pytest.fail(result.text, pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


@pytest.hookimpl(trylast=True)  # after -k and -m have taken their pick
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mine = [item for item in items if HERE in item.path.parents]
    if kernel_makes_wireguard():
        return
    runner = os.environ.get("KERNEL_RUNNER")
    if not runner:
        for item in mine:
            item.add_marker(pytest.mark.skip(reason=REASON))
        return
    either = [item for item in items if item not in mine and "backend" in getattr(item, "fixturenames", ())]
    inner = UnderRunner(runner, config.rootpath, [item.nodeid for item in mine + either])
    items[:] = [_stand_in(item, inner) if item in mine else item for item in items]
    items += [_stand_in(item, inner) for item in either]


def _stand_in(item: pytest.Item, inner: UnderRunner) -> pytest.Item:
    assert item.parent is not None
    stand_in = TestUnderRunner.from_parent(item.parent, name=f"{item.name} under the kernel")
    stand_in.inner, stand_in.inner_nodeid = inner, item.nodeid
    stand_in.add_marker(pytest.mark.timeout(SECONDS_FOR_ALL + 60))
    return stand_in
