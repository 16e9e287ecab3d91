"""The appliance under test: the real process on the exit, spoken to as an operator and a client would."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from click.testing import CliRunner

from appliance.cli import cli
from tests.support.tunnel.http_api import Api
from tests.support.tunnel.waiting import READY_SECONDS, until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping, Sequence

    from tests.support.tunnel.namespace import Namespace

PROJECT = Path(__file__).resolve().parents[3]
REGION = "test"
PROGRAM_VARIABLE = "APPLIANCE_UNDER_TEST"  # a path of a wg-appliance: it is tested in place of this tree's

# What an exit has reason to change, a line each: it must be again what it was. One process for all, and no look at
# settings that are not meant: process starts and system calls are what an emulated kernel is slowest at.
_SETTINGS = ("*forward*", "*accept_ra*", "*rp_filter*", "*src_valid_mark*", "*accept_redirects*")
_HOST = f"""
ls -1 /sys/class/net
ip -oneline address
ip route
ip -6 route
ip rule
ip -6 rule
nft list tables
grep -r "" {" ".join(f"--include='{name}'" for name in _SETTINGS)} /proc/sys/net/ipv4 /proc/sys/net/ipv6
"""


@dataclass(frozen=True, slots=True)
class Transfer:
    """What `wg show IF transfer` says of one peer, in bytes, from the exit's side."""

    received: int
    sent: int


class ExitHost(Protocol):
    """Where an appliance runs."""

    exit: Namespace

    def interface(self, role: str) -> str: ...


class Appliance(Api):
    """One appliance on the world's exit: its config, its store, its process. The store outlives the process."""

    def __init__(
        self,
        world: ExitHost,
        backend: str,
        directory: Path,
        changes: Mapping[str, Mapping[str, object]],
        environment: Mapping[str, str] | None = None,
        through: Sequence[str] = (),
        serve_options: tuple[str, ...] = (),
        role: str = "x",
    ) -> None:
        super().__init__(world.exit, str(changes.get("node", {}).get("region", REGION)))
        self.interface = world.interface(role)
        self.backend = backend
        directory.mkdir(mode=0o700)
        self._serve = ("serve", *serve_options)
        self._settings = _settings(self.interface, backend, directory / "state", changes)
        api = self._settings["api"]
        first = api["listen"] if isinstance(api["listen"], str) else api["listen"][0]  # type: ignore[index]  # a list
        self.url = f"{'https' if api.get('tls_cert') else 'http'}://{first}"
        self.state = Path(str(self._settings["node"]["state_dir"]))
        self.store = self.state / "store.sqlite"
        self.config = directory / "config.toml"
        self.configure()
        self._log = directory / "log"
        self._through = through  # a command that runs the process
        self._environment = _environment() | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._host_before = self._host()

    def configure(self, **changes: dict[str, object]) -> None:
        """Write the configuration, with these changes: for the next start, or for a reload."""
        for section, keys in changes.items():
            self._settings[section] = self._settings.get(section, {}) | keys
        self.config.write_text(_toml(self._settings), encoding="utf-8")

    # The process -----------------------------------------------------------------------------------

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Started; stopped at the end, if it still runs, and then the exit must be as it was."""
        try:
            self.start()
            yield self
        finally:
            try:
                if self.running():
                    self.stop()
            finally:
                self.kill()

    def start(self) -> None:
        """Start `serve` and wait until it is ready."""
        self._start()
        until(self._ready, "GET /readyz answers 200")

    def start_unready(self) -> None:
        """Start `serve` where it does not get ready, and wait until it answers."""
        self._start()
        until(lambda: self.api("GET", "/healthz").status == 200, "GET /healthz answers 200")

    def start_and_fail(self) -> None:
        """`serve` where it cannot start: it ends with status 1, and its log says why."""
        assert self._start().wait(timeout=READY_SECONDS) == 1, self.log()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            command = (*self._through, *self._command(*self._serve))
            self._process = self.space.start(*command, stdout=log, stderr=log, env=self._environment, cwd=PROJECT)
        return self._process

    def try_to_start(self) -> tuple[int, str]:
        """`serve` where it cannot start: its exit status, and what it said."""
        command = self._command(*self._serve)
        done = self.space.run(*command, check=False, timeout=READY_SECONDS, env=self._environment, cwd=PROJECT)
        return done.returncode, done.stderr

    def stop(self) -> None:
        """SIGTERM; it must exit 0 and, unless it is to keep its tunnels, leave the exit as it found it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(timeout=READY_SECONDS)
        assert status == 0, f"serve ended with {status}\n{self.log()}"
        if not self._settings["wireguard"]["keep_on_exit"]:
            self.require_host_as_found()

    def require_host_as_found(self) -> None:
        now = self._host()
        gone, new = sorted(self._host_before - now), sorted(now - self._host_before)
        assert (gone, new) == ([], []), f"the exit is not as it was: gone {gone}, new {new}"

    def keep_tables_of_others(self) -> None:
        """Those that came since it started are to be there after it."""
        self._host_before |= {
            line for line in self._host() if line.startswith("table ") and not line.endswith(" wg_appliance")
        }

    def reload(self) -> None:
        """SIGHUP."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """Whatever happened, no process is left."""
        if self.running():
            assert self._process is not None
            self._process.kill()
            self._process.wait(timeout=READY_SECONDS)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """It sees nothing of what happens meanwhile before all of it has happened."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            os.waitpid(self.pid, os.WUNTRACED)  # until it does
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    # The operator ----------------------------------------------------------------------------------

    def admin(self, *arguments: str) -> str:
        """An admin command's stdout."""
        return self.attempt(*arguments, check=True).stdout

    def attempt(
        self, *arguments: str, check: bool = False, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command that may fail."""
        environment = self._environment | dict(environ or {})
        return self.space.run(
            *self._command(*arguments), check=check, timeout=READY_SECONDS, env=environment, cwd=PROJECT
        )

    def token(self, account: str = "alice") -> str:
        """Makes one in this process: it does not depend on where it runs, and a start takes longer than all of it.

        Not where the appliance runs as another user: a command takes on the store's owner, for good.
        """
        create = ("token", "create", "--account", account)
        if self._through or PROGRAM_VARIABLE in os.environ:
            return self.admin(*create).strip()
        arguments = ["--config", str(self.config), *create]
        ours = dict.fromkeys(os.environ.keys() - self._environment.keys())  # None: it is taken away meanwhile
        done = CliRunner(env=ours).invoke(cli, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        printed = done.stdout
        assert len(printed.split()) == 1, "the token stands alone on stdout"
        return printed.strip()

    def live_sessions(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(self.admin("session", "list", "--live", "--json"))["sessions"]
        return listed

    def peers(self) -> set[str]:
        """The public keys in the exit's tunnel, in base64; none where there is no tunnel."""
        return set(self.space.run("wg", "show", self.interface, "peers", check=False).stdout.split())

    def transfer(self, public_key: str) -> Transfer:
        for line in self.space.run("wg", "show", self.interface, "transfer").stdout.splitlines():
            key, received, sent = line.split()
            if key == public_key:
                return Transfer(received=int(received), sent=int(sent))
        message = f"{public_key} is no peer of {self.interface}"
        raise AssertionError(message)

    # -----------------------------------------------------------------------------------------------

    def _command(self, *arguments: str) -> list[str]:
        return [*program(), "--config", str(self.config), *arguments]

    def _ready(self) -> bool:
        assert self.running(), f"serve ended before it was ready\n{self.log()}"
        return self.api("GET", "/readyz").status == 200

    def _host(self) -> set[str]:
        """What the appliance may change on its host, a line each: links, addresses, routes, rules, tables, settings."""
        lines = {line.strip() for line in self.space.run("sh", "-ec", _HOST).stdout.splitlines()}
        return lines | {f"wireguard-go, process {pid}" for pid in self.space.pids_of("wireguard-go")}


def program() -> list[str]:
    """Returns the command that runs the wg-appliance under test."""
    named = os.environ.get(PROGRAM_VARIABLE)
    return [sys.executable, "-m", "appliance"] if named is None else [named]


def _settings(
    interface: str, backend: str, state: Path, changes: Mapping[str, Mapping[str, object]]
) -> dict[str, dict[str, object]]:
    """The tests' config: figures every second, room for polling, time for slow machines, nothing left behind."""
    settings: dict[str, dict[str, object]] = {
        "node": {"name": "exit-under-test", "region": REGION, "state_dir": str(state)},
        "wireguard": {"backend": backend, "interface": interface, "keep_on_exit": False, "apply_timeout": "30s"},
        "api": {"listen": "127.0.0.1:8080", "public_requests_per_minute": 6000, "public_burst": 1000},
        "meter": {"interval": "1s"},
        "tiers.free": {"requests_per_minute": 6000},
    }
    for section, keys in changes.items():
        settings[section] = settings.get(section, {}) | dict(keys)
    return settings


def _toml(settings: Mapping[str, Mapping[str, object]]) -> str:
    """The text of text, number, flag and list values in JSON is their TOML too."""
    lines = []
    for section, keys in settings.items():
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items()), ""]
    return "\n".join(lines)


def _environment() -> dict[str, str]:
    """Ours without settings of the appliance: they would override the test's config."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WG_APPLIANCE_")}
