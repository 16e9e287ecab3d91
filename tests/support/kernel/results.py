"""What became of tests, as lines in pytest's output: printed by a plugin (`-p tests.support.kernel.results`)."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pytest

MARK = "kernel-test-result:"


@dataclass(frozen=True)
class Result:
    """`outcome` as pytest says it: passed, failed or skipped; `text` is the traceback or the reason."""

    outcome: str
    text: str
    figures: Sequence[tuple[str, object]]  # what tests show with it


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """One line for each report that decides something."""
    if report.when == "call" or report.outcome != "passed":
        text = report.longreprtext if report.failed else _reason(report)
        line = json.dumps([report.nodeid, report.outcome, text, report.user_properties]).encode()
        # On a line of its own, in one piece: nothing else in the output looks like it.
        print(f"\n{MARK}{base64.b64encode(line).decode()}", flush=True)  # noqa: T201 - it is the channel


def read(lines: Sequence[str]) -> Iterator[tuple[str, Result]]:
    """By node id. A test's teardown may fail after it passed: the later line counts."""
    for line in lines:
        if line.startswith(MARK):
            test, outcome, text, figures = json.loads(base64.b64decode(line.removeprefix(MARK)))
            yield test, Result(outcome, text, [tuple(figure) for figure in figures])


def _reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
