"""Commands side by side: the worst status counts, and nothing of them is left, whatever ended them."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tunnel.waiting import until

PROJECT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "tests.support.side_by_side")


def start(*commands: str) -> subprocess.Popen[str]:
    words = [word for command in commands for word in ("--beside", "sh", "-c", command)][1:]
    return subprocess.Popen(
        (*PROGRAM, *words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=PROJECT
    )


def running(mark: str) -> list[str]:
    listed = subprocess.run(("ps", "-eo", "args"), capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in listed if mark in line and "side_by_side" not in line]


@pytest.fixture
def mark() -> str:
    """In the command line of what must not be left, and in no other."""
    return f"left-{secrets.token_hex(4)}"


@pytest.mark.parametrize(("statuses", "status"), [((0, 0), 0), ((0, 3), 3), ((4, 0), 4)])
def test_status(statuses: tuple[int, int], status: int) -> None:
    with start(f"echo first; exit {statuses[0]}", f"echo second; exit {statuses[1]}") as process:
        shown, _ = process.communicate(timeout=60)
    assert process.returncode == status
    lines = shown.splitlines()
    assert lines.index("first") < lines.index("second")


def test_what_was_left_in_the_background(mark: str) -> None:
    with start("true", f"setsid sh -c 'sleep 1000; : {mark}' >/dev/null 2>&1 &") as process:
        process.communicate(timeout=60)
    assert (process.returncode, running(mark)) == (0, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_commands(mark: str, number: signal.Signals) -> None:
    """It ends all, also what the commands had put aside."""
    with start(f"sleep 1000; : {mark}", f"setsid sh -c 'sleep 1000; : {mark}' & wait") as process:
        until(lambda: len(running(mark)) >= 3, "all have started")
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert running(mark) == []
