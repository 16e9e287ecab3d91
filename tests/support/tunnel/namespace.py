"""One network namespace: commands run in it, and everything in it ended and removed afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from tests.support.netns import SET_UP
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Mapping


class Namespace:
    """A named network namespace with loopback up, which forwards nothing. `remove` it, whatever happened."""

    def __init__(self, name: str) -> None:
        self.name = name
        subprocess.run(["ip", "netns", "add", name], check=True, timeout=60)
        self.run(*SET_UP)

    def run(
        self,
        *command: str,
        check: bool = True,
        text_input: str | None = None,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that ends by itself and leaves no child holding its output."""
        done = subprocess.run(
            self.prefix(*command),
            input=text_input,
            stdin=subprocess.DEVNULL if text_input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=env,
            cwd=cwd,
            check=False,
        )
        if check and done.returncode != 0:
            message = f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}"
            raise AssertionError(message)
        return done

    def start(
        self,
        *command: str,
        stdout: IO[bytes] | int = subprocess.DEVNULL,
        stderr: IO[bytes] | int = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a command that stays; `ip netns exec` becomes it, so the pid is the command's own."""
        return subprocess.Popen(
            self.prefix(*command), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env, cwd=cwd
        )

    def prefix(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]

    def links_with_ipv6(self) -> set[str]:
        """The interfaces that have IPv6 settings of their own, without loopback. Also the kernel's fallback devices
        (sit0): each namespace has them once the kernel has made any tunnel of their kind."""
        return set(self.run("ls", "/proc/sys/net/ipv6/conf").stdout.split()) - {"all", "default", "lo"}

    def pids(self) -> list[int]:
        """The processes in here, as `ip netns pids` tells them; none where there is no such namespace."""
        with suppress(FileNotFoundError):
            ours = Path(f"/run/netns/{self.name}").stat()
            return [int(place.parts[2]) for place in Path("/proc").glob("[0-9]*/ns/net") if _same(place, ours)]
        return []

    def pids_of(self, program: str) -> list[int]:
        """The processes in here that run `program`, by the name the kernel keeps (15 characters)."""
        return [pid for pid in self.pids() if _stat(pid).name == program[:15]]

    def remove(self) -> None:
        """End what still runs in here, by pid, then delete the namespace and with it every interface."""
        try:
            if self.running():
                self._end(signal.SIGTERM, seconds=5)
                self._end(signal.SIGKILL, seconds=30)
        finally:
            subprocess.run(["ip", "netns", "del", self.name], check=False, timeout=60, capture_output=True)

    def _end(self, sign: signal.Signals, seconds: float) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, sign)
        with suppress(TimeoutError):
            until(lambda: not self.running(), f"{self.name} has no processes", seconds=seconds)

    def running(self) -> list[int]:
        """What has not exited yet. A zombie waits for whoever started it and holds no namespace."""
        return [pid for pid in self.pids() if _stat(pid).state not in {"Z", ""}]


def namespace_names() -> list[str]:
    """Every named network namespace of the machine."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True, timeout=60)
    return [line.split()[0] for line in listed.stdout.splitlines() if line]


def _same(namespace_of_a_process: Path, ours: os.stat_result) -> bool:
    with suppress(OSError):  # it has gone meanwhile
        found = namespace_of_a_process.stat()
        return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)
    return False


class _Stat(NamedTuple):
    """The first fields of /proc/PID/stat, proc(5); empty when the process has gone."""

    name: str
    state: str


def _stat(pid: int) -> _Stat:
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return _Stat(name="", state="")
    name, _, rest = line.partition("(")[2].rpartition(")")
    return _Stat(name=name, state=rest.split()[0])
