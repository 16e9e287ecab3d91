"""Rows about commands beside the server: how long they take on a store with many sessions."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.domain.clock import HostClock
from tests.bench import books, device
from tests.bench.contest import Row, Target, take_turns
from tests.support.cli.command_line import PROJECT, CommandLine

if TYPE_CHECKING:
    from random import Random

SESSIONS = 20_000
LIST = ("session", "list", "--live", "--json")


def listing_row(rounds: int, random: Random) -> Row:
    """All live sessions, as a script reads them; what it takes of that to open a store without any."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        full, empty = (_made(Path(folder) / name) for name in ("full", "empty"))
        books.fill(full.state.store, device.some_peers(0, SESSIONS, random), HostClock().now(), 0, random)
        seconds = take_turns(
            rounds,
            {
                "session list": partial(_run, "-m", "appliance", "--config", str(full.config), *LIST),
                "of none": partial(_run, "-m", "appliance", "--config", str(empty.config), *LIST),
                "python -c pass": partial(_run, "-c", "pass"),
            },
        )
    work = f"session list --live --json, {SESSIONS:,} live"
    return Row(work, "s", seconds, [Target("session list", "python -c pass", 15.0)])


def _made(folder: Path) -> CommandLine:
    folder.mkdir()
    line = CommandLine(folder)
    with line.config.open("a", encoding="utf-8") as config:
        config.write('[wireguard]\nsubnet = "10.101.0.0/16"\n')
    line.do("init")
    return line


def _run(*arguments: str) -> None:
    # An installed program's modules are compiled.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, *arguments]
    subprocess.run(command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL, check=True, timeout=60)
