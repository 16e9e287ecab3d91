"""Tests that need the kernel's WireGuard, on a machine whose kernel has it or under a runner that brings one.

Where `ip link add type wireguard` works, they simply run. Else, if KERNEL_RUNNER is set (the beginning of a
command line, to which a command is appended), ONE pytest is started under that runner for all that were selected,
beside the tests out here, and again if the runner's kernel hangs (under_runner.py); each then reports what became of it
in there. With neither, they are skipped, and say so.

Tests elsewhere that ask for the fixture `backend` take whichever WireGuard there is. Under a runner they run
twice: out here on wireguard-go, and once more, as `NAME under the kernel`, in the inner pytest. Not those of
tests/install: they boot machines, which takes more of a kernel than WireGuard.

With `--kernel only`, a pytest has the inner one and nothing else; `make test` runs it beside another that has all but
these (`--kernel without`). `-m under_kernel` leaves, of what would run twice, what depends on the backend.

The inner pytest tells results by lines in its output (results.py): a runner gives that back and nothing else, as
what is written under it may not outlive it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.kernel.under_runner import SECONDS_FOR_ALL, UnderRunner
from tests.support.real_backend import kernel_makes_wireguard

HERE = Path(__file__).parent
REASON = (
    "NOT TESTED: this kernel makes no WireGuard interfaces (or this is not root), and KERNEL_RUNNER names no "
    "command that runs one under a kernel that does"
)


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


INNER = pytest.StashKey[UnderRunner]()


@pytest.hookimpl(trylast=True)  # after -k and -m have taken their pick
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mine = [item for item in items if HERE in item.path.parents]
    which = config.getoption("--kernel")
    if which == "without":
        _take(config, items, [item for item in items if item not in mine])
        return
    if kernel_makes_wireguard():
        if which == "only":
            _take(config, items, mine)
        return
    runner = os.environ.get("KERNEL_RUNNER")
    if not runner:
        for item in mine:
            item.add_marker(pytest.mark.skip(reason=REASON))
        if which == "only":
            _take(config, items, mine)
        return
    if hasattr(config, "workerinput"):
        raise pytest.UsageError("KERNEL_RUNNER runs one kernel for all: -n goes with --kernel without")
    outside = [item for item in items if item not in mine and HERE.parent / "install" not in item.path.parents]
    either = [item for item in outside if "backend" in getattr(item, "fixturenames", ())]
    inner = config.stash[INNER] = UnderRunner(runner, config.rootpath, [item.nodeid for item in mine + either])
    # Last, whatever was named first: the others are run while the inner pytest is at work.
    others = [item for item in items if item not in mine]
    _take(config, items, others if which == "too" else [])
    items += [_stand_in(item, inner) for item in (*mine, *either)]


def pytest_runtestloop(session: pytest.Session) -> None:
    if INNER in session.config.stash and not session.config.option.collectonly:
        session.config.stash[INNER].start()


def pytest_unconfigure(config: pytest.Config) -> None:
    if INNER in config.stash:
        config.stash[INNER].close()


def _take(config: pytest.Config, items: list[pytest.Item], some: list[pytest.Item]) -> None:
    """Leave these of all."""
    taken = set(some)
    config.hook.pytest_deselected(items=[item for item in items if item not in taken])
    items[:] = some


def _stand_in(item: pytest.Item, inner: UnderRunner) -> pytest.Item:
    assert item.parent is not None
    stand_in = TestUnderRunner.from_parent(item.parent, name=f"{item.name} under the kernel")
    stand_in.inner, stand_in.inner_nodeid = inner, item.nodeid
    stand_in.add_marker(pytest.mark.timeout(SECONDS_FOR_ALL + 60))
    return stand_in
