"""`wg-appliance connect -- COMMAND`: one program's traffic through the exit, and nobody else's."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from client import CURL
from connecting import CTRL_C, command, connecting_ground, environment, in_terminal, state_of
from waiting import READY_SECONDS, until
from world import EXIT_IP, EXIT_IP6, WEB, WEB6

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connecting import Ground

NOBODY = pwd.getpwnam("nobody")
RESOLV_CONF = Path("/etc/resolv.conf")


@pytest.fixture(scope="module")
def shared(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with connecting_ground(backend, tmp_path_factory.mktemp("command")) as made:
        yield made


@pytest.fixture
def ground(shared: Ground) -> Iterator[Ground]:
    """Afterwards nothing may be left: of the tunnel on the client's machine, of the session at the exit."""
    before = state_of(shared.client.space)
    yield shared
    shared.serve_as_before()
    assert state_of(shared.client.space) == before
    assert shared.exit.live_sessions() == []


def run(ground: Ground, *program: str, options: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
    whole = command(*options, "--", *program)
    return ground.client.space.run(*whole, check=False, timeout=READY_SECONDS, env=environment(ground.token, **env))


def start(ground: Ground, *program: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
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


def test_its_traffic_and_no_other(ground: Ground) -> None:
    """While the program's traffic leaves from the exit, over both versions, the machine's goes its own way: its
    routes are untouched, and the internet, which knows the exit alone, gives it no answer."""
    script = f"{' '.join(CURL[:2])} --noproxy '*' -sS {WEB}/ip; echo; curl -q --noproxy '*' -sS {WEB6}/ip; echo; read _"
    before = state_of(ground.client.space)
    running = subprocess.Popen(
        ground.client.space.prefix(*command("--", "bash", "-c", script)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(ground.token),
    )
    assert running.stdout is not None
    assert [running.stdout.readline().strip() for _ in range(2)] == [EXIT_IP, EXIT_IP6]
    assert ground.client.get(f"{WEB}/ip", seconds=2) == ""
    routes = {line for line in state_of(ground.client.space) - before if " dev " in line or "lookup" in line}
    assert routes == set()
    running.communicate("\n", timeout=READY_SECONDS)
    assert running.returncode == 0


@pytest.mark.parametrize(
    ("program", "status"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -9 $$"), 128 + 9),
        (("/nonexistent/program",), 127),
        (("/etc/passwd",), 126),
    ],
)
def test_its_status_is_ours(ground: Ground, program: tuple[str, ...], status: int) -> None:
    """Also that of a signal, and what a shell says of programs that cannot be run. stdout is the program's alone."""
    done = run(ground, *program)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(f"connected: test, traffic leaves from {EXIT_IP} ")
    assert "\nended       closed\n" in done.stderr


def test_what_it_finds(ground: Ground) -> None:
    """A loopback and the tunnel, a resolver that it can reach, and no token; the machine's own resolver is kept."""
    before = RESOLV_CONF.read_bytes()
    done = run(ground, "sh", "-c", "cat /proc/net/dev; echo; cat /etc/resolv.conf; env | grep -c WG_APPLIANCE_TOKEN")
    devices, _, rest = done.stdout.partition("\n\n")
    assert sorted(line.split(":")[0].strip() for line in devices.splitlines()[2:]) == ["lo", "wgc0"]
    assert rest == "nameserver 9.9.9.9\n0\n"
    asked = run(ground, "cat", "/etc/resolv.conf", options=("--dns", "192.0.2.53", "--dns", "2001:db8::53"))
    assert asked.stdout == "nameserver 192.0.2.53\nnameserver 2001:db8::53\n"
    assert RESOLV_CONF.read_bytes() == before


def test_as_the_user_behind_sudo(ground: Ground) -> None:
    """Whoever called sudo runs the program, in their groups and with their home."""
    sudo = {"SUDO_UID": str(NOBODY.pw_uid), "SUDO_GID": str(NOBODY.pw_gid), "SUDO_USER": NOBODY.pw_name}
    done = run(ground, "sh", "-c", "id -u; id -g; id -G; echo $HOME $USER; grep CapEff /proc/self/status", **sudo)
    uid, gid = str(NOBODY.pw_uid), str(NOBODY.pw_gid)
    groups = " ".join(map(str, os.getgrouplist(NOBODY.pw_name, NOBODY.pw_gid)))
    shown = [uid, gid, groups, f"{NOBODY.pw_dir} {NOBODY.pw_name}", "CapEff:\t0000000000000000"]
    assert done.stdout.splitlines() == shown, done.stderr


def test_signals_are_its_own(ground: Ground) -> None:
    """SIGTERM goes to the program; when it ends, so do tunnel and session, with its status."""
    running = start(ground, "sh", "-c", "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.1; done")
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=READY_SECONDS)
    assert (running.returncode, out) == (5, "caught\n")


def test_ctrl_c_is_the_programs(ground: Ground) -> None:
    """On a terminal Ctrl-C reaches the program once, from the terminal; one that goes on keeps its tunnel."""
    script = "trap 'echo caught' INT; echo ready; while read line; do echo got $line; done"
    loop = f'while :; do {script}; [ -n "$line" ] || break; done; exit 3'
    with in_terminal(ground.client.space, command("--", "bash", "-c", loop), environment(ground.token)) as terminal:
        terminal.await_text("ready")
        terminal.press(CTRL_C)
        terminal.await_text("caught")
        terminal.press(b"still\n")
        terminal.await_text("got still")
        terminal.press(b"\x04")
        assert terminal.wait() == 3, terminal.text
        assert terminal.text.count("caught") == 1


def test_ended_by_the_server(ground: Ground) -> None:
    """A session that an operator ends takes the program with it: status 4, and the reason."""
    running = start(ground, "sleep", "1000")
    until(ground.exit.live_sessions, "the session is open")
    (session,) = ground.exit.live_sessions()
    program_of(running, "sleep")
    ground.exit.admin("session", "terminate", session["id"])
    _, err = running.communicate(timeout=READY_SECONDS)
    assert running.returncode == 4
    assert err.endswith("wg-appliance: error: the server has ended the session: admin\n")


def test_several_at_once(ground: Ground) -> None:
    """Each has a tunnel of its own."""
    many = [start(ground, *CURL, f"{WEB}/ip") for _ in range(2)]
    for running in many:
        out, err = running.communicate(timeout=READY_SECONDS)
        assert (running.returncode, out) == (0, EXIT_IP), err


def test_json_goes_to_stderr(ground: Ground) -> None:
    """stdout stays the program's."""
    done = run(ground, "echo", "own", options=("--json",))
    assert (done.returncode, done.stdout) == (0, "own\n")
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert (events[0], events[-1]) == ("connected", "receipt")


def test_killed(ground: Ground) -> None:
    """What a killed run left behind, the next one takes away: its session, and a wireguard-go where there is one."""
    killed = start(ground, "sleep", "1000", options=("--json",))
    assert killed.stderr is not None
    left = json.loads(killed.stderr.readline())
    program = program_of(killed, "sleep")
    killed.kill()
    killed.wait(timeout=READY_SECONDS)
    done = run(ground, "true")
    assert f"cleared up what process {killed.pid} had left: {left['interface']}" in done.stderr
    assert done.returncode == 0
    os.kill(program, signal.SIGKILL)  # it is its user's, and goes on without a way out
    killed.communicate(timeout=READY_SECONDS)
