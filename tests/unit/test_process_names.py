"""How a process is named in messages."""

from __future__ import annotations

import subprocess
import sys

from appliance.network.process_names import describe
from tests.support.tunnel.waiting import until


def test_a_process_is_named_with_its_arguments_and_who_started_it_without() -> None:
    """What cannot be printed is left out; of one that has gone nothing is known."""
    command = [sys.executable, "-c", "input()", "a\nb"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        told = until(lambda: describe(process.pid), "it runs")  # at first it has no arguments yet
        process.kill()
    assert f"-c input() a b (process {process.pid}), started by " in told
    assert "pytest" not in told.partition("started by")[2]
    assert describe(process.pid) is None
