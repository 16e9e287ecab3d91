"""What waits, started with signals ignored (as nohup and `&` have it): they stay so, and SIGTERM ends it still."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
IGNORED = (signal.SIGINT, signal.SIGHUP)
# What `connect` and `selftest` wait with.
WAITING = """
from appliance.client.signals import InterruptedBySignal, Interruption
interruption = Interruption()
with interruption.awaited():
    print("waiting", flush=True)
    try:
        interruption.pause(100)
    except InterruptedBySignal as how:
        print(how, flush=True)
"""
# What `selftest` runs its steps with.
STEPS = """
import time
from appliance.client.signals import Interruption
from appliance.ops.selftest.run import SelfTestStep, run
def one():
    print("waiting", flush=True)
    time.sleep(100)
    return "the end"
clear = SelfTestStep("clear", lambda: "cleared", "")
run((SelfTestStep("one", one, ""),), clear, Interruption(), lambda outcome: print(outcome.detail, flush=True))
"""
BEFORE = "import signal, sys, os\nfor n in ({}): signal.signal(n, signal.SIG_IGN)\nos.execv(sys.executable, {!r})\n"


def start(program: str, ignored: tuple[signal.Signals, ...]) -> subprocess.Popen[str]:
    """A child that has had these ignored from its first instruction on."""
    first = BEFORE.format("".join(f"{int(number)}, " for number in ignored), [sys.executable, "-c", program])
    return subprocess.Popen((sys.executable, "-c", first), stdout=subprocess.PIPE, text=True, cwd=PROJECT)


@pytest.mark.parametrize("program", [WAITING, STEPS], ids=["pause", "steps"])
def test_ignored(program: str) -> None:
    with start(program, (*IGNORED, signal.SIGTERM)) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "waiting\n"
        for number in IGNORED:
            child.send_signal(number)
        child.send_signal(signal.SIGTERM)
        assert "SIGTERM" in child.stdout.read()
    assert child.returncode == 0


@pytest.mark.parametrize("number", IGNORED)
@pytest.mark.parametrize("program", [WAITING, STEPS], ids=["pause", "steps"])
def test_not_ignored(program: str, number: signal.Signals) -> None:
    """The same, started as a terminal does."""
    with start(program, ()) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "waiting\n"
        child.send_signal(number)
        assert number.name in child.stdout.read()
    assert child.returncode == 0
