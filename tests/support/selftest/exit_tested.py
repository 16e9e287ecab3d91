"""A real exit on a host of its own, and the self-test run there as an operator does."""

from __future__ import annotations

import json
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.config.load import read_settings
from appliance.domain.errors import HostError
from appliance.ops.selftest.api_client import LocalApi
from appliance.ops.selftest.plan import names
from tests.support.faults.real_exit import PROJECT, SOCKETS, RealExit, real_exit
from tests.support.tunnel.waiting import READY_SECONDS, last_answer, until

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator, Sequence

OWN_IP = "203.0.113.7"
STEPS = ("api", "host", "account", "session", "tunnel", "handshake", "traffic", "counted", "closed", "cleared")
TABLES = ("accounts", "tokens", "sessions", "peers", "baselines", "invoice_lines", "usage_days")


@dataclass(frozen=True, slots=True)
class Run:
    status: int
    out: str
    err: str

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Of a run with --json."""
        shown: dict[str, Any] = json.loads(self.out)
        assert shown["passed"] == (self.status == 0)
        steps: list[dict[str, Any]] = shown["steps"]
        return steps

    @property
    def figures(self) -> str:
        return ", ".join(f"{step['step']} {step['seconds']:.2f} s" for step in self.steps)


class TestedExit:
    """`exit` and its host; what the self-test may leave there."""

    __test__ = False  # no class of tests, in pytest's eyes

    def __init__(self, exit_: RealExit) -> None:
        self.exit = exit_
        self._names = names(exit_.interface)

    def start(self) -> None:
        self.exit.launch()
        until(self._ready, "GET /readyz answers 200")
        until(self._rests, "the exit runs no other program")

    def selftest(self, *options: str) -> Run:
        running = self.begin_selftest(*options)
        out, err = running.communicate(timeout=READY_SECONDS)
        return Run(running.returncode, out, err)

    def begin_selftest(self, *options: str) -> subprocess.Popen[str]:
        with self.exit.space.entered():
            return subprocess.Popen(
                self.exit.command_line("selftest", *options),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=self.exit.environment,
                cwd=PROJECT,
            )

    @contextmanager
    def commands_configured(self, **settings: str) -> Iterator[None]:
        """Otherwise than the server that runs."""
        before = self.exit.environment
        self.exit.environment = before | {f"WG_APPLIANCE_{name}": value for name, value in settings.items()}
        try:
            yield
        finally:
            self.exit.environment = before

    def await_sessions(self, number: int) -> None:
        """A session's peer is there before it is stored."""
        live = "SELECT count(*) FROM sessions WHERE state = 'live'"
        until(lambda: self.exit.rows(live) == [(number,)], f"the exit has {number} sessions")

    def inside(self, *command: str, text_input: str | None = None) -> str:
        with self.exit.space.entered():
            done = subprocess.run(
                command, input=text_input, capture_output=True, text=True, timeout=READY_SECONDS, check=False
            )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def set_up_firewall(self, hook: str, rule: str) -> None:
        """Somebody else's, with one rule."""
        chain = f"type filter hook {hook} priority 0\n{rule}\n"
        self.inside("nft", "-f", "-", text_input=f"table inet other {{\nchain other {{\n{chain}}}\n}}\n")

    def remove_firewall(self) -> None:
        self.inside("nft", "-f", "-", text_input="table inet other {}\ndelete table inet other\n")

    def left_behind(self) -> dict[str, object]:
        """All that a run may leave: to be compared with what was there before."""
        return {
            "links": self.inside("ip", "-oneline", "link", "show"),
            "addresses": self.inside("ip", "-oneline", "address", "show"),
            "routes": self.inside("ip", "route", "show", "table", "all"),
            "rules": self.inside("nft", "list", "ruleset"),
            "peers": self.exit.peers(),
            "programs": sorted(self.exit.programs().elements()),
            "wireguard-go": _command_lines_with(self._names.tunnel),
            "socket": (SOCKETS / f"{self._names.tunnel}.sock").exists(),
            "state": sorted(path.name for path in self.exit.state.iterdir()),
            **{table: self.exit.rows(f"SELECT count(*) FROM {table}") for table in TABLES},  # noqa: S608 (constants)
        }

    def settled(self) -> dict[str, object]:
        """The same once the exit has followed what has changed last, such as the links of the run before.

        On a busy machine an nft that the exit runs is there longer than two looks are apart: it must have ended too.
        """
        seen = [self.left_behind()]

        def is_unchanged() -> bool:
            rests = self._rests()
            seen.append(self.left_behind())
            return rests and self._rests() and seen[-1] == seen[-2]

        until(is_unchanged, "the exit has settled", every=0.3)
        return seen[-1]

    def assert_nothing_left(self, before: dict[str, object]) -> None:
        """In the end. For a moment the exit may still run nft because somebody's rules have changed."""
        now = last_answer(self.left_behind, before)
        assert {name: (before[name], now[name]) for name in now if now[name] != before[name]} == {}

    def _rests(self) -> bool:
        """It runs none of the programs that it runs for a moment, as nft."""
        running = self.exit.programs()
        return running.total() == 1 + running["wireguard-go"]

    def _ready(self) -> bool:
        api = LocalApi(read_settings(self.exit.config, self.exit.environment).api)
        try:
            with self.exit.space.entered():
                return api.ask("GET", "/readyz").status == 200
        except HostError:
            return False


@contextmanager
def exit_and_host(backend: str, **settings: str) -> Iterator[TestedExit]:
    """Its store is there; it does not serve yet. `settings`: METER_INTERVAL="2s", for example."""
    # Not pytest's folders: their paths are too long for a Unix socket.
    with tempfile.TemporaryDirectory(prefix="exit-") as folder, real_exit(Path(folder), backend) as exit_:
        exit_.environment |= {f"WG_APPLIANCE_{name}": value for name, value in settings.items()}
        exit_.command("init")
        try:
            yield TestedExit(exit_)
        except BaseException as error:
            if exit_.log.exists():
                error.add_note(exit_.last_words())
            raise


def stop_at(step: str, running: subprocess.Popen[str], sign: signal.Signals) -> Run:
    """Send the signal when the step before this one is through, and wait for the end."""
    assert running.stdout is not None
    before = STEPS[STEPS.index(step) - 1]
    read = []
    for line in running.stdout:
        read.append(line)
        if line.split()[:2] == ["ok", before]:
            running.send_signal(sign)
            break
    out, err = running.communicate(timeout=READY_SECONDS)
    return Run(running.returncode, "".join(read) + out, err)


def outcomes(human: str) -> Sequence[tuple[str, str]]:
    """(step, ok or failed) of each line."""
    return [(line.split()[1], line.split()[0]) for line in human.splitlines()]


def _command_lines_with(word: str) -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if word in line:
            found.append(line)
    return found
