"""What tests of every folder ask for: the tunnel that this machine has, and a line in the figures.

Figures are printed at the end of every run, of tests that passed too.

Where pytest-xdist spreads tests over processes, each of these has network and mount namespaces of its own.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

# Before anything of it is imported: a failed assertion there shows its values too, as one in a test does. The plugin
# under a KERNEL_RUNNER is of it, and came first.
if "tests.support" not in sys.modules:
    pytest.register_assert_rewrite("tests.support")

from tests.support.figures import FIGURES
from tests.support.own_host import enter_own_host
from tests.support.real_backend import NO_ROOT, backend_here

if TYPE_CHECKING:
    from collections.abc import Callable


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kernel",
        choices=("too", "only", "without"),
        default="too",
        help="the tests that need the kernel's WireGuard, and under KERNEL_RUNNER those that run on it once more: "
        "with the others (too), and none but these (only), or none of these (without)",
    )


def pytest_configure() -> None:
    """Tests do not depend on who started them: signals that were ignored (`nohup`, `&`) are at their defaults for what
    is started here. A closed terminal still does not end the run."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)
    if "PYTEST_XDIST_WORKER" in os.environ:
        enter_own_host()


@pytest.fixture(scope="session")
def backend() -> str:
    """`kernel` where the kernel makes WireGuard interfaces, `userspace` else. Asking for it needs root."""
    return _backend_or_skip()


@pytest.fixture
def once() -> str:
    """As `backend`, where a test need not run under a runner too."""
    return _backend_or_skip()


def _backend_or_skip() -> str:
    found = backend_here()
    if found is None:
        pytest.skip(NO_ROOT)
    return found


@pytest.fixture
def show(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Shows a line of figures with the test's name, at the end of the run."""
    return lambda line: record_property(FIGURES, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]
    lines = [(r.nodeid, line) for r in reports for name, line in r.user_properties if name == FIGURES]
    if lines:
        terminalreporter.section(FIGURES)
    for nodeid, line in sorted(lines):
        terminalreporter.line(f"{nodeid.rpartition('::')[2]}: {line}")
