"""One connection, with a tunnel and an exit of the test's: in which order things come and go."""

from __future__ import annotations

import signal
import subprocess
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest

from appliance.client import run_records
from appliance.client.api.responses import Again, Live, OpenedSession, Over
from appliance.client.api.sessions import Stopped
from appliance.client.command import run_command
from appliance.client.connection import ClientConnection, ConnectionOptions, ConnectionOutcome, run
from appliance.client.signals import InterruptedBySignal, Interruption
from appliance.client.tunnel.tunnel import TunnelCounters
from appliance.domain.errors import HostError, TunnelError
from tests.support.client.scripted_api import CONFIG, OPENED, SESSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from appliance.client.run_records import RunClaim
    from appliance.client.run_totals import RunTotals
    from appliance.client.tunnel.wg_config import SessionConfig
    from appliance.client.ui.status_text import View

KEY = bytes(range(32))
FIRST = OpenedSession(**OPENED)
OTHER_ADDRESS = OpenedSession(**{**OPENED, "id": "ses_2", "wg_config": CONFIG.replace("10.101.0.2", "10.101.0.9")})
SAME_ADDRESS = OpenedSession(**{**OPENED, "id": "ses_2"})
FINAL = SESSION | {"terminated_reason": "quota_exceeded"}


@dataclass
class Stage:
    """All parts, and in `log` what was done to them, in order."""

    place: RunClaim
    opened: deque[OpenedSession | Again | Exception] = field(default_factory=lambda: deque([FIRST]))
    statuses: deque[Live | Over | Again] = field(default_factory=deque)
    counters_: deque[TunnelCounters | Exception] = field(default_factory=deque)
    log: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)  # that were dialled
    views: list[View] = field(default_factory=list)
    total: RunTotals | None = None  # that the receipt has
    fails: str = ""
    left: list[str] = field(default_factory=list)
    mark: int | None = None
    gone = False
    default_resolvers = ()
    url = "https://exit.example"

    # The exit
    def open(self, wish: Mapping[str, object], *again: int) -> OpenedSession | Again:
        self.log.append(f"open {wish['region']}{' again' if again else ''}{'' if wish['ipv6'] else ' without IPv6'}")
        found = self.opened.popleft()
        if isinstance(found, Exception):
            raise found
        return found

    def try_open(self, wish: Mapping[str, object], failures: int) -> OpenedSession | Again:
        return self.open(wish, failures)

    def status(self, *found: Any) -> Any:
        if len(found) == 1:  # the screen's: a view
            self.views.append(found[0])
            return None
        if not self.statuses:
            raise InterruptedBySignal("the script has ended")
        return self.statuses.popleft()

    def close(self, *session_id: str) -> Mapping[str, Any]:
        self.log.append(f"close {session_id[0]}" if session_id else "screen closed")
        if not session_id and self.fails == "screen":
            raise ValueError("nothing can be drawn")
        if session_id and self.fails == "close":
            raise HostError("nobody there")
        if session_id and self.fails == "wait":
            raise InterruptedBySignal("interrupted by SIGINT")
        return SESSION | {"terminated_reason": "closed"}

    # The tunnel
    def check(self) -> None:
        if self.fails == "check":
            raise HostError("wg-quick is missing")

    def up(self, config: SessionConfig) -> None:
        self.log.append("up")
        self.hosts.append(str(config.host))
        if self.fails == "up":
            raise TunnelError("no such device")

    def change(self, _before: SessionConfig, config: SessionConfig) -> None:
        self.log.append(f"change {config.addresses[0]}")
        self.hosts.append(str(config.host))

    def counters(self) -> TunnelCounters:
        found = self.counters_.popleft() if self.counters_ else TunnelCounters(0, 0, None)
        if isinstance(found, Exception):
            raise found
        return found

    def down(self) -> list[str]:
        self.log.append("down")
        return self.left

    # The screen
    def connected(self, *_: object) -> None: ...

    def remark(self, text: str) -> None:
        self.log.append(f"remark {text}")

    def receipt(self, _elapsed_s: float, session: Mapping[str, Any], total: RunTotals) -> None:
        self.total = total
        self.log.append(f"receipt {session['id']}")


class Tunnel:
    """The stage's, whose mark is a method."""

    default_resolvers: tuple[str, ...] = ()

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stage, name)

    def mark(self) -> int:
        return 51820


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(run_records, "FOLDER", tmp_path / "run")
    monkeypatch.setattr(run_records, "_is_free", lambda _: True)
    with run_records.claimed("machine") as place:
        yield Stage(place)


def unresolved(name: str) -> IPv4Address:
    raise AssertionError(f"{name} is asked for")


def play(
    stage: Stage, stay: ConnectionOutcome | None = None, resolve: Callable[[str], IPv4Address] = unresolved
) -> ConnectionOutcome:
    """`stay`: what comes of it, instead of watching."""
    wish = ConnectionOptions("fsn", ipv6=True, resolvers=None, every_s=0.0)
    interruption = Interruption()
    connection = ClientConnection(wish, KEY, stage, stage, Tunnel(stage), stage.place, interruption, resolve)  # type: ignore[arg-type]
    with interruption.awaited():
        return run(connection, stage, lambda _: stay or connection.watch(stage, interruption))  # type: ignore[arg-type]


def test_ctrl_c_is_a_clean_end(stage: Stage) -> None:
    """Ctrl-C is a clean end: the tunnel goes first, then the session, then comes the receipt; nothing is noted."""
    stage.statuses.append(Live(SESSION))
    assert play(stage) == ConnectionOutcome(0)
    assert stage.log == ["open fsn", "up", "screen closed", "down", "close ses_1", "receipt ses_1"]
    assert list(run_records.FOLDER.iterdir()) == []


def test_ended_by_the_server(stage: Stage) -> None:
    """Status 4 and the reason; the figures of the answer are the receipt's, and nobody closes what has ended."""
    stage.statuses += [Live(SESSION), Over("quota_exceeded", FINAL)]
    assert play(stage) == ConnectionOutcome(4, "the server has ended the session: quota_exceeded")
    assert stage.log == ["open fsn", "up", "screen closed", "down", "receipt ses_1"]


def test_unknown_to_the_server(stage: Stage) -> None:
    """There are no figures for a receipt."""
    stage.statuses.append(Over("session not found", {}))
    assert play(stage) == ConnectionOutcome(4, "the server has ended the session: session not found")
    assert stage.log[-1] == "down"


@pytest.mark.parametrize(("opened", "changed"), [(SAME_ADDRESS, []), (OTHER_ADDRESS, ["change 10.101.0.9"])])
def test_an_idle_session_is_opened_again_with_the_same_key(
    stage: Stage, opened: OpenedSession, changed: list[str]
) -> None:
    """Opened again with the same key, however often the exit puts it off; the tunnel is touched only where the file
    differs."""
    stage.opened += [Again(0.0, "no network"), Again(0.0, "no network"), opened]
    stage.statuses += [Over("idle", SESSION), Live(SESSION)]
    assert play(stage) == ConnectionOutcome(0)
    changes = [line.partition(",")[0] for line in stage.log if line.startswith("change")]
    assert changes == changed
    assert stage.log.count("open fsn again") == 3
    assert [view.away for view in stage.views] == ["", "no network", "no network", "", ""]
    assert stage.log[-2:] == ["close ses_2", "receipt ses_1"]


def test_the_figures_of_sessions_opened_again_are_added_up(stage: Stage) -> None:
    """The line and the receipt are of all sessions of the run, each with what the exit told of it last; while the exit
    puts the next one off, the last one is counted once."""
    stage.opened += [Again(0.0, "no network"), SAME_ADDRESS]
    stage.statuses += [Live(SESSION | {"seconds": 90}), Over("idle", SESSION | {"seconds": 100})]
    stage.statuses.append(Live(SESSION | {"seconds": 5}))
    play(stage)
    assert [view.total.seconds for view in stage.views] == [90, 100, 100, 100, 105]
    assert stage.total is not None
    assert (stage.total.sessions, stage.total.seconds) == (2, 100 + SESSION["seconds"])
    assert (stage.total.bytes_in, stage.total.bytes_out) == (2 * SESSION["bytes_in"], 2 * SESSION["bytes_out"])


@pytest.mark.parametrize(
    ("answers", "dialled"),
    [
        (["203.0.113.9", "203.0.113.9"], []),
        (["203.0.113.9", "203.0.113.10"], ["203.0.113.10"]),
        (["203.0.113.9", None], []),
    ],
)
def test_the_exits_name_is_resolved_for_each_session(
    stage: Stage, answers: list[str | None], dialled: list[str]
) -> None:
    """An exit that has moved meanwhile is dialled where it is now; without an answer, where it was."""
    given = iter(answers)

    def resolve(name: str) -> IPv4Address:
        found = next(given)
        if found is None:
            raise HostError(f"{name} cannot be resolved")
        return IPv4Address(found)

    named = {**OPENED, "wg_config": CONFIG.replace("203.0.113.1:", "exit.example:")}
    stage.opened = deque([OpenedSession(**named), OpenedSession(**named | {"id": "ses_2"})])
    stage.statuses += [Over("idle", SESSION), Live(SESSION)]
    assert play(stage, resolve=resolve) == ConnectionOutcome(0)
    assert next(given, "asked twice") == "asked twice"
    assert stage.hosts == ["203.0.113.9", *dialled]


def test_a_session_opened_again_stays_without_ipv6(stage: Stage) -> None:
    """The exit gave none when the tunnel was made, which has no routes for it: no other session brings it either."""
    without = OpenedSession(**{**OPENED, "wg_config": CONFIG.replace(", fd65:7869:7400::2/128", "")})
    stage.opened = deque([without, SAME_ADDRESS])
    stage.statuses += [Over("idle", SESSION), Live(SESSION)]
    play(stage)
    assert [line for line in stage.log if line.startswith("open")] == ["open fsn", "open fsn again without IPv6"]


def test_a_refusal_after_idleness_ends_the_run(stage: Stage) -> None:
    """Where it is not let in again, the status is that of the refusal, and the tunnel goes."""
    stage.opened.append(Stopped("quota exceeded", 3))
    stage.statuses.append(Over("idle", SESSION))
    assert play(stage) == ConnectionOutcome(3, "quota exceeded")
    assert "down" in stage.log


def test_the_api_is_away(stage: Stage) -> None:
    """Nothing happens to the tunnel; the line says so until there is an answer again."""
    stage.statuses += [Live(SESSION), Again(0.0, "refused"), Again(0.0, "refused"), Live(SESSION)]
    assert play(stage) == ConnectionOutcome(0)
    assert [view.away for view in stage.views] == ["", "refused", "refused", ""]
    assert all(view.session == SESSION for view in stage.views)


def test_a_tunnel_made_anew_counts_on(stage: Stage) -> None:
    """Its counters begin at zero, the connection's do not."""
    stage.statuses += [Live(SESSION)] * 3
    stage.counters_ += [TunnelCounters(100, 10, 1.0), TunnelCounters(5, 1, None), TunnelCounters(8, 2, 2.0)]
    play(stage)
    assert [(view.traffic.down, view.traffic.up) for view in stage.views] == [(100, 10), (105, 11), (108, 12)]


@pytest.mark.parametrize(
    ("fails", "done"),
    [
        ("check", ["screen closed", "down"]),
        ("up", ["open fsn", "up", "screen closed", "down", "close ses_1"]),
    ],
)
def test_what_fails_before_it_is_up(stage: Stage, fails: str, done: list[str]) -> None:
    """Status 1; what there is already is taken back, and there is no receipt."""
    stage.fails = fails
    assert play(stage).exit_status == 1
    assert stage.log == done
    assert list(run_records.FOLDER.iterdir()) == []


def test_a_screen_that_fails(stage: Stage) -> None:
    """Whatever it raises: the tunnel goes, the session is closed, and nothing is noted."""
    stage.fails = "screen"
    stage.statuses.append(Live(SESSION))
    with pytest.raises(ValueError, match="nothing can be drawn"):
        play(stage)
    assert stage.log == ["open fsn", "up", "screen closed", "down", "close ses_1"]
    assert list(run_records.FOLDER.iterdir()) == []


def test_a_refusal_makes_nothing(stage: Stage) -> None:
    """Status and words of the refusal; nothing was made."""
    stage.opened = deque([Stopped("quota exceeded (tier free)", 3)])
    assert play(stage) == ConnectionOutcome(3, "quota exceeded (tier free)")
    assert "up" not in stage.log


def test_the_tunnel_has_gone(stage: Stage) -> None:
    """Somebody took the interface away: status 1, and the session is closed."""
    stage.statuses.append(Live(SESSION))
    stage.counters_.append(HostError("there is no WireGuard interface wgc0"))
    assert play(stage) == ConnectionOutcome(1, "there is no WireGuard interface wgc0")
    assert "close ses_1" in stage.log


@pytest.mark.parametrize(("fails", "why"), [("close", "nobody there"), ("wait", "interrupted by SIGINT")])
def test_a_session_that_cannot_be_closed(stage: Stage, fails: str, why: str) -> None:
    """Nobody answers, or a second Ctrl-C ends the waiting: status 1; it is noted, so that the next run closes it."""
    stage.fails = fails
    outcome = play(stage)
    assert outcome == ConnectionOutcome(1, f"the session ses_1 ends by itself, for it could not be closed: {why}")
    assert "down" in stage.log
    with_session = [path.read_text() for path in run_records.FOLDER.iterdir()]
    assert len(with_session) == 1
    assert '"session": "ses_1"' in with_session[0]


@pytest.mark.parametrize("status", [0, 7])
def test_the_programs_status_stays_though_closing_fails(stage: Stage, status: int) -> None:
    """It is told that the session could not be closed, but whether the program has done its work is another matter."""
    stage.fails = "close"
    outcome = play(stage, ConnectionOutcome(status, of_program=True))
    assert (outcome.exit_status, "could not be closed" in outcome.line) == (status, True)


def test_a_tunnel_that_stays(stage: Stage) -> None:
    """What cannot be taken down is said beside the reason for the end, and noted; the way to the API stays."""
    stage.left = ["wg-quick down failed: it says why"]
    stage.statuses.append(Over("drained", FINAL))
    assert play(stage) == ConnectionOutcome(
        4, "the server has ended the session: drained; wg-quick down failed: it says why"
    )
    assert stage.mark == 51820
    assert len(list(run_records.FOLDER.iterdir())) == 1


# Signals --------------------------------------------------------------------------------------------


def test_a_second_signal_ends_the_second_wait() -> None:
    """The first one ends what waits; the next, what waits after that. Several before it are one."""
    interruption = Interruption()
    with interruption.awaited():
        with pytest.raises(InterruptedBySignal, match="SIGTERM"), interruption.allowed():
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(InterruptedBySignal, match="SIGINT"):
            interruption.pause(60)
        with interruption.allowed():
            pass


def test_a_signal_before_there_is_a_program() -> None:
    """It ends the run, as it would have ended the program: which is not started any more."""
    interruption = Interruption()
    with interruption.awaited():
        signal.raise_signal(signal.SIGTERM)
        outcome = run_command(
            lambda: pytest.fail("it is started"), lambda *_: pytest.fail("it is watched"), interruption
        )
    assert outcome == ConnectionOutcome(1, "interrupted by SIGTERM before the program was started")


def test_an_ignored_signal_stays_ignored() -> None:
    """As nohup(1) has it: the closed terminal is not meant to end it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        interruption = Interruption()
        with interruption.awaited(), interruption.allowed():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.timeout(60)
def test_a_childs_end_is_noticed_whoever_started_it() -> None:
    """The kernel tells the thread that forked, which is not the one that waits."""
    interruption = Interruption((signal.SIGCHLD,))
    with interruption.awaited(), ThreadPoolExecutor(1) as other:
        child = other.submit(subprocess.Popen, ["sleep", "0.1"]).result()
        with pytest.raises(InterruptedBySignal, match="SIGCHLD"):
            interruption.pause(600)
        assert child.wait() == 0
