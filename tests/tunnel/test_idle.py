"""An exit on which nothing happens does nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.tunnel.client import CURL
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.tunnel.appliance_process import Appliance

METRICS = "http://127.0.0.1:9586/metrics"
INTERVALS = 3  # of a second


def test_an_idle_exit_runs_no_program_and_logs_nothing(
    start_appliance: Callable[..., Appliance], show: Callable[[str], None]
) -> None:
    """With a live session and nobody who does anything no program is run and no line logged; a repair runs one program,
    logs one line, and is not done again."""
    appliance = start_appliance(meter={"interval": "1s"})
    appliance.open(appliance.token())
    before, logged = programs_run(appliance), appliance.log()
    await_intervals(appliance)
    idle, quiet = programs_run(appliance), appliance.log()

    appliance.space.run("nft", "flush", "chain", "inet", "wg_appliance", "forward")
    until(lambda: appliance.log() != quiet, "the repair is logged")
    repaired, told = until(lambda: programs_run(appliance) - idle, "nft was run"), appliance.log()
    await_intervals(appliance)

    show(f"faults of programs that were run: {idle - before} while idle, {repaired} in a repair")
    assert (idle, quiet) == (before, logged)
    assert told.removeprefix(quiet).count("\n") == 1
    assert (programs_run(appliance), appliance.log()) == (idle + repaired, told)


def programs_run(appliance: Appliance) -> int:
    """A number that stands still as long as no program is run to its end.

    proc(5), /proc/PID/stat: `cminflt`, the page faults of all children that were waited for. No program starts
    without any.
    """
    after_name = Path(f"/proc/{appliance.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return int(after_name[11 - 3])


def await_intervals(appliance: Appliance) -> None:
    """Until it has looked at everything so many times more."""

    def ticks() -> int:
        text = appliance.space.run(*CURL, "--fail", METRICS).stdout
        (number,) = re.findall(r"^wg_appliance_ticks_total (\S+)$", text, re.MULTILINE)
        return int(float(number))

    wanted = ticks() + INTERVALS
    until(lambda: ticks() >= wanted, f"{INTERVALS} intervals have passed")
