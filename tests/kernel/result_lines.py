"""A pytest plugin for the pytest under the runner: one line a test in the output, which is all that comes back."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pytest

PREFIX = "kernel-test-result:"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """One for each report that decides something."""
    if report.when == "call" or report.outcome != "passed":
        text = report.longreprtext if report.failed else _reason(report)
        line = json.dumps([report.nodeid, report.outcome, text, report.user_properties]).encode()
        # On a line of its own, in one piece: nothing else in the output looks like it.
        print(f"\n{PREFIX}{base64.b64encode(line).decode()}", flush=True)  # noqa: T201 - it is the channel


def parse(lines: Sequence[str]) -> Iterator[tuple[str, str, str, list[tuple[str, object]]]]:
    """(test, outcome, text, figures) of each. A test's teardown may fail after it passed: the later line counts."""
    for line in lines:
        if line.startswith(PREFIX):
            test, outcome, text, figures = json.loads(base64.b64decode(line.removeprefix(PREFIX)))
            yield test, outcome, text, [tuple(figure) for figure in figures]


def _reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
