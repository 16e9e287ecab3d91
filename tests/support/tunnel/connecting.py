"""`wg-appliance connect` as a person runs it: in a pseudo-terminal, on a client's host."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyte

from tests.support.tunnel.appliance_process import PROGRAM_VARIABLE, PROJECT, Appliance
from tests.support.tunnel.client import clients_of
from tests.support.tunnel.waiting import READY_SECONDS, until
from tests.support.tunnel.world import EXIT_IP, new_world

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.tunnel.client import Client
    from tests.support.tunnel.namespace import Namespace
    from tests.support.tunnel.world import World

API = f"http://{EXIT_IP}:8080"
LISTENING = {"listen": "0.0.0.0:8080", "insecure_http": True}
RUN = Path("/run/wg-appliance-client")
COLUMNS, LINES = 160, 40
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


def command(*arguments: str, api: str = API) -> list[str]:
    other = os.environ.get(PROGRAM_VARIABLE)
    program = [other] if other else [sys.executable, "-m", "appliance"]
    return [*program, "connect", "--api", api, "--insecure-http", "--every", "1s", *arguments]


def environment(token: str, **more: str) -> dict[str, str]:
    """Without what the surroundings say about us, or about the terminal."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("WG_APPLIANCE_", "SUDO_"))}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        ours.pop(name, None)
    return ours | {"WG_APPLIANCE_TOKEN": token, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | more


def state_of(space: Namespace) -> set[str]:
    """What a connection may change on its machine, and the files that it has there."""
    commands = (
        ("ip", "-oneline", "address"),
        ("ip", "route"),
        ("ip", "-6", "route"),
        ("ip", "rule"),
        ("ip", "-6", "rule"),
        ("nft", "list", "tables"),
    )
    lines = {line.strip() for shown in commands for line in space.run(*shown).stdout.splitlines()}
    return lines | {str(path) for path in RUN.glob("*")} | {f"process {pid}" for pid in space.pids()}


@dataclass
class Ground:
    """An exit that its clients can reach, one client, and a token."""

    world: World
    exit: Appliance
    client: Client
    token: str
    changed: bool = False

    def serve_with(self, tier: Mapping[str, object]) -> None:
        """Other limits of the tier free, until `serve_as_before`."""
        self.exit.configure(**{"tiers.free": {**USUAL, **tier}})
        self.exit.reload()
        self.changed = True

    def serve_as_before(self) -> None:
        if not self.exit.running():
            self.exit.start()
        if self.changed:
            self.serve_with({})
            self.changed = False


USUAL = {"bytes_limit": "5 GiB", "idle_timeout": "5m"}


@contextmanager
def connecting_ground(backend: str, folder: Path) -> Iterator[Ground]:
    with new_world(1) as world, clients_of(world, folder) as clients:
        exit_ = Appliance(world, backend, folder / "appliance", {"api": LISTENING})
        with exit_.serving():
            yield Ground(world, exit_, clients[0], exit_.token("owner"))


class Terminal:
    """A pseudo-terminal with one command in it, whose controlling terminal it is."""

    def __init__(self, space: Namespace, command: list[str], env: Mapping[str, str], columns: int = COLUMNS) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
        self._columns = columns
        self.output = bytearray()
        self._closed = False
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
            while not self._closed:
                if select.select([self._master], [], [], 0.1)[0]:
                    self.output += os.read(self._master, 4096)

    @property
    def text(self) -> str:
        """All that was ever shown, without colours."""
        return ESCAPES.sub(b"", bytes(self.output)).decode(errors="replace").replace("\r", "\n")

    def shown(self) -> list[str]:
        """The lines that are on the screen now."""
        screen = pyte.Screen(self._columns, LINES)
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
        self._stop_reading()
        os.close(self._master)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=READY_SECONDS)
        if not self._closed:
            self._stop_reading()
            os.close(self._master)

    def _stop_reading(self) -> None:
        """Who reads keeps the terminal open."""
        self._closed = True
        self._reader.join(timeout=READY_SECONDS)


CTRL_C = b"\x03"


@contextmanager
def in_terminal(
    space: Namespace, command: list[str], env: Mapping[str, str], columns: int = COLUMNS
) -> Iterator[Terminal]:
    terminal = Terminal(space, command, env, columns)
    try:
        yield terminal
    finally:
        terminal.close()


class Piped:
    """The command with its output in pipes."""

    def __init__(self, client: Client, token: str, *arguments: str, **env: str) -> None:
        self.process = subprocess.Popen(
            client.space.prefix(*command(*arguments)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(token, **env),
        )

    def lines(self) -> Iterator[str]:
        assert self.process.stdout is not None
        yield from iter(self.process.stdout.readline, "")

    def event(self, name: str) -> dict[str, Any]:
        """The next JSON line of this event."""
        found: dict[str, Any]
        for line in self.lines():
            found = json.loads(line)
            if found["event"] == name:
                return found
        raise AssertionError(f"it ended without {name}")

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=READY_SECONDS)
        return self.process.returncode, out, err


def run_through(
    ground: Ground, *program: str, options: tuple[str, ...] = (), **env: str
) -> subprocess.CompletedProcess[str]:
    # Its end is noticed at once, not at the next status.
    whole = command("--every", "10m", *options, "--", *program)
    return ground.client.space.run(*whole, check=False, timeout=READY_SECONDS, env=environment(ground.token, **env))


def start_through(ground: Ground, *program: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ground.client.space.prefix(*command(*options, "--", *program)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(ground.token),
    )


def program_of(running: subprocess.Popen[str], name: str) -> int:
    """The process of the program that it runs, once it does."""

    def found() -> int:
        listed = subprocess.run(
            ["ps", "--ppid", str(running.pid), "-o", "pid=,comm="],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return next((int(line.split()[0]) for line in listed.stdout.splitlines() if line.split()[1] == name), 0)

    return until(found, f"{name} runs")
