"""`wg-appliance connect` as a person runs it: in a pseudo-terminal, on a client's host."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pyte
from appliance_process import PROJECT
from waiting import READY_SECONDS, until
from world import EXIT_IP

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from namespace import Namespace

API = f"http://{EXIT_IP}:8080"
LISTENING = {"listen": "0.0.0.0:8080", "insecure_http": True}
RUN = Path("/run/wg-appliance-client")
COLUMNS, LINES = 160, 40
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


def command(*arguments: str, api: str = API) -> list[str]:
    return [sys.executable, "-m", "appliance", "connect", "--api", api, "--insecure-http", "--every", "1s", *arguments]


def environment(token: str, **more: str) -> dict[str, str]:
    """Without what the surroundings say about us, or about the terminal."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("WG_APPLIANCE_", "SUDO_"))}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        ours.pop(name, None)
    return ours | {"WG_APPLIANCE_TOKEN": token, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | more


class Terminal:
    """A pseudo-terminal with one command in it, whose controlling terminal it is."""

    def __init__(self, space: Namespace, command: list[str], env: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.output = bytearray()
        self.process = subprocess.Popen(
            space.prefix("setsid", "--ctty", *command),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=dict(env),
            cwd=PROJECT,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        # EIO: nobody has the terminal open any more.
        with suppress(OSError):
            while piece := os.read(self._master, 4096):
                self.output += piece

    @property
    def text(self) -> str:
        """All that was ever shown, without colours."""
        return ESCAPES.sub(b"", bytes(self.output)).decode(errors="replace").replace("\r", "\n")

    def shown(self) -> list[str]:
        """The lines that are on the screen now."""
        screen = pyte.Screen(COLUMNS, LINES)
        pyte.ByteStream(screen).feed(bytes(self.output))
        return [line.rstrip() for line in screen.display if line.strip()]

    def await_text(self, pattern: str) -> re.Match[str]:
        def found() -> re.Match[str] | None:
            if (match := re.search(pattern, self.text)) is None and self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode} without {pattern!r}:\n{self.text}")
            return match

        match = until(found, f"{pattern!r} is shown")
        assert match is not None
        return match

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def wait(self) -> int:
        return self.process.wait(timeout=READY_SECONDS)

    def hang_up(self) -> None:
        """The window is closed: the kernel tells its session with SIGHUP."""
        os.kill(self.process.pid, signal.SIGSTOP)  # the reader's read() would keep the terminal open
        os.kill(self.process.pid, signal.SIGCONT)
        os.close(self._master)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=READY_SECONDS)
        self._reader.join(timeout=READY_SECONDS)
        with suppress(OSError):
            os.close(self._master)


CTRL_C = b"\x03"


@contextmanager
def in_terminal(space: Namespace, command: list[str], env: Mapping[str, str]) -> Iterator[Terminal]:
    terminal = Terminal(space, command, env)
    try:
        yield terminal
    finally:
        terminal.close()
