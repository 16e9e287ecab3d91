"""`wg-appliance connect -- COMMAND`: the program's status, terminal, user, signals and resolver."""

from __future__ import annotations

import json
import os
import pwd
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.client import CURL
from tests.support.tunnel.connecting import (
    CTRL_C,
    command,
    environment,
    in_terminal,
    program_of,
    run_through,
    start_through,
)
from tests.support.tunnel.waiting import READY_SECONDS, until
from tests.support.tunnel.world import EXIT_IP, WEB

if TYPE_CHECKING:
    from tests.support.tunnel.connecting import Ground

NOBODY = pwd.getpwnam("nobody")
RESOLV_CONF = Path("/etc/resolv.conf")
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(
    ("program", "status"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -9 $$"), 128 + 9),
    ],
)
def test_its_status_is_ours(ground: Ground, program: tuple[str, ...], status: int) -> None:
    """Also that of a signal. stdout is the program's alone."""
    done = run_through(ground, *program)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(f"connected: test, traffic leaves from {EXIT_IP} ")
    assert "\nended       closed\n" in done.stderr


@pytest.mark.black_box
@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        ("/nonexistent/program", 127, "/nonexistent/program: No such file or directory"),
        ("nonesuch", 127, "nonesuch: No such file or directory"),
        ("/etc/passwd", 126, "/etc/passwd: Permission denied"),
        ("/etc", 126, "/etc: Permission denied"),
    ],
)
def test_a_program_that_cannot_be_run(ground: Ground, program: str, status: int, said: str) -> None:
    """What a shell says of it, and its status; no session is opened for it."""
    opened = ground.exit.admin("session", "list", "--json")
    done = run_through(ground, program)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"wg-appliance: error: {said}\n")
    assert ground.exit.admin("session", "list", "--json") == opened


def test_a_script_whose_interpreter_is_missing(ground: Ground, tmp_path: Path) -> None:
    """Only the start tells: the tunnel is up by then, and goes again."""
    script = tmp_path / "script"
    script.write_text("#!/nonexistent/interpreter\n")
    script.chmod(0o755)
    assert run_through(ground, str(script)).returncode == 127


def test_the_program_finds_a_tunnel_and_a_resolver_and_no_token(ground: Ground) -> None:
    """A loopback and the tunnel, a resolver that it can reach, and no token; the machine's own resolver is kept."""
    before = RESOLV_CONF.read_bytes()
    script = "ip -brief link show up | cut -d ' ' -f 1; cat /etc/resolv.conf; env | grep -c WG_APPLIANCE_TOKEN"
    done = run_through(ground, "sh", "-c", script)
    interface, *rest = done.stdout.splitlines()[1:]
    assert done.stdout.startswith("lo\nwgc"), interface
    assert rest == ["nameserver 9.9.9.9", "0"]
    asked = run_through(ground, "cat", "/etc/resolv.conf", options=("--dns", "192.0.2.53", "--dns", "2001:db8::53"))
    assert asked.stdout == "nameserver 192.0.2.53\nnameserver 2001:db8::53\n"
    own = run_through(ground, "cat", "/etc/resolv.conf", options=("--dns", "none"))
    assert own.stdout.encode() == before, "the machine's own, as it was asked for"
    assert RESOLV_CONF.read_bytes() == before


def test_as_the_user_behind_sudo(ground: Ground) -> None:
    """Whoever called sudo runs the program, in their groups and with their home."""
    sudo = {"SUDO_UID": str(NOBODY.pw_uid), "SUDO_GID": str(NOBODY.pw_gid), "SUDO_USER": NOBODY.pw_name}
    done = run_through(
        ground, "sh", "-c", "id -u; id -g; id -G; echo $HOME $USER; grep CapEff /proc/self/status", **sudo
    )
    uid, gid = str(NOBODY.pw_uid), str(NOBODY.pw_gid)
    groups = " ".join(map(str, os.getgrouplist(NOBODY.pw_name, NOBODY.pw_gid)))
    shown = [uid, gid, groups, f"{NOBODY.pw_dir} {NOBODY.pw_name}", "CapEff:\t0000000000000000"]
    assert done.stdout.splitlines() == shown, done.stderr


def test_signals_are_its_own(ground: Ground) -> None:
    """SIGTERM goes to the program; when it ends, so do tunnel and session, with its status."""
    running = start_through(
        ground, "sh", "-c", "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    )
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
    running = start_through(ground, "sleep", "1000")
    until(ground.exit.live_sessions, "the session is open")
    (session,) = ground.exit.live_sessions()
    program_of(running, "sleep")
    ground.exit.admin("session", "terminate", session["id"])
    _, err = running.communicate(timeout=READY_SECONDS)
    assert running.returncode == 4
    assert err.endswith("wg-appliance: error: the server has ended the session: admin\n")


def test_programs_at_once_have_a_tunnel_each(ground: Ground) -> None:
    """Each has a tunnel of its own."""
    many = [start_through(ground, *CURL, f"{WEB}/ip") for _ in range(2)]
    for running in many:
        out, err = running.communicate(timeout=READY_SECONDS)
        assert (running.returncode, out) == (0, EXIT_IP), err


def test_json_goes_to_stderr(ground: Ground) -> None:
    """stdout stays the program's."""
    done = run_through(ground, "echo", "own", options=("--json",))
    assert (done.returncode, done.stdout) == (0, "own\n")
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert (events[0], events[-1]) == ("connected", "receipt")
