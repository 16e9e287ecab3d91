"""Draws what `wg-appliance connect` shows, from a real run through a real exit, for the README.

python -m tests.tunnel.record_connect tests/tunnel/connect.svg
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

from tests.support.real_backend import backend_here
from tests.support.tunnel.appliance_process import Appliance
from tests.support.tunnel.client import clients_of
from tests.support.tunnel.connecting import CTRL_C, LISTENING, Terminal, command, environment, in_terminal
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import new_world

COLUMNS = 126
DOWNLOAD = 400_000_000
PROMPT = "root@laptop:~# wg-appliance connect"


def screen_of(terminal: Terminal) -> list[Text]:
    """The lines that are on it, in their colours."""
    screen = pyte.Screen(COLUMNS, 20)
    pyte.ByteStream(screen).feed(bytes(terminal.output))
    lines = []
    for row in range(screen.lines):
        cells = [screen.buffer[row][column] for column in range(COLUMNS)]
        line = Text()
        for cell in cells:
            colour = None if cell.fg == "default" else {"brown": "yellow"}.get(cell.fg, cell.fg)
            line.append(cell.data, Style(color=colour, bold=cell.bold))
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1].plain:
        lines.pop()
    return lines


def record() -> list[Text]:
    backend = backend_here()
    assert backend is not None, "tunnels need root"
    changes = {"api": LISTENING, "node": {"region": "fsn"}}
    with (
        tempfile.TemporaryDirectory() as folder,
        new_world(1) as world,
        clients_of(world, Path(folder)) as (client,),
        Appliance(world, backend, Path(folder) / "appliance", changes).serving() as exit_,
        in_terminal(client.space, command(), environment(exit_.token()), COLUMNS) as terminal,
    ):
        terminal.await_text("Ctrl-C ends it")
        download = client.start_download(DOWNLOAD, "recording")
        until(lambda: download.received() > DOWNLOAD / 2, "half of it has arrived")
        terminal.await_text(r"left")
        during = screen_of(terminal)
        client.stop_transfers()
        terminal.press(CTRL_C)
        assert terminal.wait() == 0, terminal.text
        return [Text(PROMPT), *during, Text(), Text("^C", "dim"), *screen_of(terminal)[1:]]


def main(path: str) -> None:
    lines = record()
    with Path("/dev/null").open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        for line in lines:
            console.print(line, soft_wrap=True)
        drawn = console.export_svg(title="wg-appliance connect")
    # The fonts that rich names are on a server; every reader has one of their own.
    Path(path).write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL), encoding="utf-8")
    print("\n".join(line.plain for line in lines))  # noqa: T201 (a tool)


if __name__ == "__main__":
    main(sys.argv[1])
