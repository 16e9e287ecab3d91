"""A real exit: the server's process in a network namespace, its store, its tunnel, and its API on a Unix socket."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.netns import new_namespace
from tests.support.tunnel.appliance_process import program
from tests.support.tunnel.waiting import READY_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.support.netns import Namespace

PROJECT = Path(__file__).resolve().parents[3]
REGION = "test"
SUBNET, SUBNET6 = "10.101.0.0/24", "fd65:7869:7400::/112"
SHORT_LIVED = "anonymous"  # the tier whose sessions end by themselves, after a second
SOCKETS = Path("/var/run/wireguard")  # wireguard-go's, one directory for all network namespaces


class UnixConnection(HTTPConnection):
    """HTTP over a Unix socket, which needs no way into the exit's network namespace."""

    def __init__(self, path: Path) -> None:
        super().__init__("exit.test", timeout=READY_SECONDS)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def ask(self, method: str, path: str, token: str | None = None, body: object = None) -> tuple[int, Any]:
        """(status, body), the body parsed where it is JSON. OSError or HTTPException where no whole answer came."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if answer.headers.get_content_subtype() == "json" else content


class RealExit:
    """The store and the tunnel outlive the process, as on a host."""

    def __init__(self, folder: Path, space: Namespace, backend: str) -> None:
        self.space = space
        self.backend = backend
        self.state = folder / "state"
        self.store = self.state / "store.sqlite"
        self.log = folder / "log"
        self.interface = f"wgf{space.name[-8:]}"
        self.environment = {n: v for n, v in os.environ.items() if not n.startswith("WG_APPLIANCE_")}
        self.api, self._metrics = folder / "api", folder / "metrics"
        self.config = folder / "config.toml"
        self.config.write_text(self._settings(), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None
        self.under: Callable[[], list[str]] = list  # what a command is run under
        self.program: Callable[[], list[str]] = program

    # The process -------------------------------------------------------------------------------------

    def launch(self) -> None:
        with self.log.open("ab") as log, self.space.entered():
            self._process = subprocess.Popen(
                self.command_line("serve"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=PROJECT,
            )

    def await_ready(self) -> None:
        until(self._ready, "GET /readyz answers 200")

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, wherever it is."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=READY_SECONDS)

    def stand_still(self) -> None:
        """SIGSTOP; returns when every thread stands. ChildProcessError when it has exited."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM, and it must end well."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(timeout=READY_SECONDS)
        assert status == 0, f"serve ended with {status}\n{self.last_words()}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def last_words(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-6000:]

    def command_line(self, *arguments: str) -> list[str]:
        return [*self.under(), *self.program(), "--config", str(self.config), *arguments]

    def command(self, *arguments: str) -> str:
        """An admin command's stdout."""
        done = subprocess.run(
            self.command_line(*arguments),
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=PROJECT,
            timeout=READY_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def token(self, account: str, tier: str) -> str:
        return self.command("token", "create", "--account", account, "--tier", tier).strip()

    # What it answers and holds -----------------------------------------------------------------------

    @contextmanager
    def connection(self) -> Iterator[UnixConnection]:
        with closing(UnixConnection(self.api)) as connection:
            yield connection

    def exposition(self) -> str:
        """What /metrics says."""
        with closing(UnixConnection(self._metrics)) as connection:
            text: str = connection.ask("GET", "/metrics")[1].decode()
        return text

    def metric(self, name: str) -> float:
        text = self.exposition()
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert found is not None, text
        return float(found[1])

    def peers(self) -> dict[str, frozenset[str]]:
        """The tunnel's peers by public key, with their allowed-ips."""
        shown = self._inside("wg", "show", self.interface, "allowed-ips")
        lines = (line.split() for line in shown.splitlines())
        return {key: frozenset(ips) - {"(none)"} for key, *ips in lines}

    def rows(self, sql: str, store: Path | None = None) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(store or self.store)) as db:
            return db.execute(sql).fetchall()

    def programs(self) -> Counter[str]:
        """What runs in the exit's namespace, by the name that the kernel keeps."""
        return Counter(name for pid in self._pids() if (name := _program(pid)) is not None)

    def lose_tunnel(self) -> None:
        """Take the interface away, as nobody but the host itself would."""
        if self.backend == "kernel":
            self._inside("ip", "link", "del", "dev", self.interface)
            return
        for pid in self._pids_of("wireguard-go"):
            os.kill(pid, signal.SIGKILL)
        until(lambda: not self._pids_of("wireguard-go"), "wireguard-go has gone")

    def close(self) -> None:
        """Nothing is left running. What the namespace holds goes with it."""
        if self._process is not None:
            self.kill()
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, sign)
            with suppress(TimeoutError):
                until(lambda: not self._pids(), "nothing runs in the namespace")
        (SOCKETS / f"{self.interface}.sock").unlink(missing_ok=True)

    # -------------------------------------------------------------------------------------------------

    def _ready(self) -> bool:
        assert self._process is not None
        status = self._process.poll()
        assert status is None, f"serve ended with {status} before it was ready\n{self.last_words()}"
        try:
            with self.connection() as connection:
                return connection.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def _inside(self, *command: str) -> str:
        with self.space.entered():
            done = subprocess.run(command, capture_output=True, text=True, timeout=READY_SECONDS, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _pids(self) -> list[int]:
        """Zombies, which hold no namespace, left out."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.space.name], capture_output=True, text=True, check=True, timeout=60
        )
        return [pid for pid in map(int, listed.stdout.split()) if _program(pid) is not None]

    def _pids_of(self, program: str) -> list[int]:
        return [pid for pid in self._pids() if _program(pid) == program]

    def _settings(self) -> str:
        """JSON's text is TOML's too. No limit is in the way: neither of use, nor of requests, nor of idleness; nor is a
        request refused because the machine is slow."""
        unlimited = {
            "bytes_limit": 0,
            "seconds_limit": 0,
            "max_live_sessions": 0,
            "idle_timeout": 0,
            "requests_per_minute": 10**6,
        }
        sections: Mapping[str, Mapping[str, object]] = {
            "node": {"region": REGION, "public_ip": "192.0.2.1", "state_dir": str(self.state)},
            "wireguard": {
                "backend": self.backend,
                "interface": self.interface,
                "subnet": SUBNET,
                "subnet6": SUBNET6,
                "apply_timeout": "60s",
            },
            "api": {
                "listen": f"unix:{self.api}",
                "public_requests_per_minute": 10**6,
                "public_burst": 10**6,
            },
            "metrics": {"listen": f"unix:{self._metrics}"},
            "meter": {"interval": "1s"},
            "pricing": {"millicents_per_minute": 1000},
            f"tiers.{SHORT_LIVED}": {**unlimited, "max_session": "1s"},
            "tiers.free": unlimited,
            "tiers.paid": unlimited,
        }
        lines = []
        for section, keys in sections.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items()), ""]
        return "\n".join(lines)


@contextmanager
def real_exit(folder: Path, backend: str) -> Iterator[RealExit]:
    """`folder` has to have a short path: that of a Unix socket has 107 bytes at most."""
    with new_namespace() as space:
        exit_ = RealExit(folder, space, backend)
        try:
            yield exit_
        finally:
            exit_.close()


def _program(pid: int) -> str | None:
    """By the name that the kernel keeps (proc(5), 15 characters); None once it has exited."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return None
    name, _, rest = line.partition("(")[2].rpartition(")")
    return None if rest.split()[0] in "ZX" else name
