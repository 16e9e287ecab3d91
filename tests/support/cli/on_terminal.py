"""The command line under test, on a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.support.cli.command_line import PROJECT

if TYPE_CHECKING:
    from tests.support.cli.command_line import CommandLine


def on_terminal(wga: CommandLine, *arguments: str, columns: int = 80, said: str = "") -> str:
    """What a command shows on a terminal of this width, where this is typed."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "appliance", "--config", str(wga.config), *arguments]
    environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=PROJECT, env=environ)
    os.close(slave)
    if said:
        os.write(master, f"{said}\n".encode())
    shown = b""
    with suppress(OSError):  # EIO: the other end is closed
        while more := os.read(master, 4096):
            shown += more
    process.wait(timeout=60)
    os.close(master)
    return shown.decode().replace("\r\n", "\n")
