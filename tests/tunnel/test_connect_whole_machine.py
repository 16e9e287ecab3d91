"""`wg-appliance connect` for the whole machine: what it shows where, how it ends, what it outlives, what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.connecting import API, CTRL_C, RUN, command, environment, in_terminal, state_of
from tests.support.tunnel.waiting import READY_SECONDS, until
from tests.support.tunnel.webserver import blob_sha256
from tests.support.tunnel.world import EXIT_IP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client
    from tests.support.tunnel.connecting import Ground, Piped

LONG = 40_000_000  # minutes at a trickle

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def client(ground: Ground) -> Client:
    return ground.client


@pytest.fixture
def exit_(ground: Ground) -> Appliance:
    return ground.exit


def test_no_color_shows_no_colour(exit_: Appliance, client: Client) -> None:
    """With NO_COLOR there is none; Ctrl-C pressed again and again changes nothing of what is cleared up."""
    with in_terminal(client.space, command(), environment(exit_.token(), NO_COLOR="1")) as terminal:
        terminal.await_text(r"handshake \d+s ago")
        terminal.press(CTRL_C * 3)
        assert terminal.wait() == 0, terminal.text
    assert not re.search(rb"\x1b\[[0-9;]*(3|4|9)[0-9](;[0-9;]*)?m", bytes(terminal.output))


def test_the_status_line_fits_a_narrow_terminal(exit_: Appliance, client: Client) -> None:
    """The line leaves room for the ^C that the terminal writes behind it: on one row, it goes as a whole."""
    with in_terminal(client.space, command(), environment(exit_.token()), columns=40) as terminal:
        terminal.await_text(r"0:00:0[1-9]  ↓ \S+  ↑ \S+")
        terminal.press(CTRL_C)
        assert terminal.wait() == 0, terminal.text
        shown = terminal.shown()
    assert not any("↓" in line for line in shown), shown
    assert any(line.startswith("ended ") for line in shown)


def test_a_dumb_terminal_gets_plain_lines(exit_: Appliance, client: Client) -> None:
    """Where no line can renew itself there are plain ones."""
    with in_terminal(client.space, command(), environment(exit_.token(), TERM="dumb")) as terminal:
        terminal.await_text(r"test .*ago.*\n+test .*ago")
        terminal.press(CTRL_C)
        assert terminal.wait() == 0, terminal.text
    assert "\x1b" not in terminal.output.decode()


def test_a_pipe_gets_plain_lines(exit_: Appliance, piped: Callable[..., Piped]) -> None:
    """Into a pipe go plain lines, a status each; SIGTERM ends it like Ctrl-C."""
    running = piped(exit_.token())
    lines = running.lines()
    assert [next(lines).split("  ")[:2] for _ in range(2)] == [["test", EXIT_IP]] * 2
    running.process.send_signal(signal.SIGTERM)
    status, out, err = running.end()
    assert status == 0
    assert err.startswith("connected: test")
    assert "\nended       closed\n" in f"\n{out}"
    assert "\x1b" not in out + err


def test_each_json_line_is_an_object(exit_: Appliance, piped: Callable[..., Piped]) -> None:
    """With --json each line is an object: connected, statuses with figures, a receipt that is DELETE's answer."""
    running = piped(exit_.token(), "--json", "test")
    connected = running.event("connected")
    status = running.event("status")
    assert (status["id"], status["region"], status["public_ip"]) == (connected["id"], "test", EXIT_IP)
    assert status["quota_bytes_limit"] > status["quota_bytes_used"] >= 0
    running.process.send_signal(signal.SIGINT)
    code, out, err = running.end()
    receipt = json.loads(out.splitlines()[-1])
    assert (code, err) == (0, "")
    assert (receipt["event"], receipt["id"], receipt["terminated_reason"]) == ("receipt", connected["id"], "closed")


def test_a_closed_terminal_ends_it_like_ctrl_c(exit_: Appliance, client: Client) -> None:
    """The window is closed: the same as Ctrl-C, without anybody to tell."""
    with in_terminal(client.space, command(), environment(exit_.token())) as terminal:
        terminal.await_text(r"handshake \d+s ago")
        terminal.hang_up()
        assert terminal.wait() == 0


def test_a_closed_pipe_ends_it(exit_: Appliance, piped: Callable[..., Piped]) -> None:
    """`connect | head -1`: when nobody reads any more it ends, with a session closed and a tunnel taken down."""
    running = piped(exit_.token())
    next(running.lines())
    assert running.process.stdout is not None
    running.process.stdout.close()
    assert running.process.wait(timeout=READY_SECONDS) == 0


def test_a_second_run_on_the_machine_is_refused(exit_: Appliance, client: Client, piped: Callable[..., Piped]) -> None:
    """A second one on the same machine is refused before it opens a session, and disturbs nothing."""
    token = exit_.token()
    first = piped(token, "--json")
    first.event("connected")
    done = client.space.run(*command(), check=False, env=environment(token))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"this machine is connected already, by process {first.process.pid}" in done.stderr
    assert len(exit_.live_sessions()) == 1
    usage = client.space.run(*command("--usage"), env=environment(token))
    assert " of 2h, resets in " in usage.stdout, "as root one asks past the tunnel"
    first.event("status")
    first.process.send_signal(signal.SIGINT)
    assert first.end()[0] == 0


def test_a_used_up_quota_ends_it_and_refuses_the_next(
    ground: Ground, piped: Callable[..., Piped], client: Client
) -> None:
    """Quota reached while running: status 4 and the reason. At the next try: 3, with the breakdown and the reset."""
    ground.serve_with({"bytes_limit": 3_000_000})
    token = ground.exit.token("poor")
    running = piped(token, "--json")
    running.event("connected")
    client.start_download(LONG, "quota")
    status, out, err = running.end()
    client.stop_transfers()
    assert (status, err) == (4, "wg-appliance: error: the server has ended the session: quota_exceeded\n")
    assert json.loads(out.splitlines()[-1])["terminated_reason"] == "quota_exceeded"
    refused = client.space.run(*command(), check=False, env=environment(token))
    assert (refused.returncode, refused.stdout) == (3, "")
    assert re.fullmatch(
        r"wg-appliance: error: quota exceeded \(tier free\): [\d.]+ MiB of 2\.9 MiB \(resets \S+Z\), "
        r"session time \w+ of 2h 0m \(resets \S+Z\); try again after \S+Z, .*\n",
        refused.stderr,
    )


def test_the_tunnel_carries_on_while_the_server_restarts(
    ground: Ground, piped: Callable[..., Piped], client: Client
) -> None:
    """Killed and started again meanwhile: the tunnel carries on, statuses go on and say so, Ctrl-C is a clean end."""
    running = piped(ground.exit.token(), "--json")
    running.event("connected")
    assert client.address_seen() == EXIT_IP
    download = client.start_download(LONG, "restart", slow_until="restarted")
    ground.exit.kill()
    away = next(s for s in iter(lambda: running.event("status"), None) if s["api_away"])
    assert "the API does not answer" in away["api_away"]
    received = download.received()
    until(lambda: download.received() > received + 100_000, "the download goes on without the API")
    ground.exit.start()
    back = next(s for s in iter(lambda: running.event("status"), None) if not s["api_away"])
    assert back["down_bytes"] > away["down_bytes"]
    ground.world.open_gate("restarted")
    assert download.finish().sha256 == blob_sha256(LONG, "restart")
    client.stop_transfers()
    running.process.send_signal(signal.SIGINT)
    assert running.end()[0] == 0


def test_idle_is_opened_again(ground: Ground, piped: Callable[..., Piped], client: Client) -> None:
    """Ended as idle, as after a laptop's sleep: another session with the same key, and traffic again."""
    ground.serve_with({"idle_timeout": "4s"})
    running = piped(ground.exit.token(), "--json")
    first = running.event("connected")
    # Without handshakes, which come every two minutes at the earliest, it ends by itself.
    remark = running.event("remark")
    assert remark["text"] == f"session {first['id']} had ended as idle; opening another with the same key"
    assert next(s for s in iter(lambda: running.event("status"), None) if s["id"] != first["id"])
    ground.serve_as_before()
    assert client.address_seen() == EXIT_IP
    running.process.send_signal(signal.SIGINT)
    assert running.end()[0] == 0


def test_the_next_run_clears_up_after_a_killed_one(ground: Ground, piped: Callable[..., Piped]) -> None:
    """SIGKILL leaves a tunnel and a session; the next run takes both away before it begins."""
    token = ground.exit.token()
    killed = piped(token, "--json")
    left = killed.event("connected")
    killed.process.kill()
    killed.end()
    assert [session["id"] for session in ground.exit.live_sessions()] == [left["id"]]
    assert (RUN / f"{left['interface']}.conf").stat().st_mode & 0o777 == 0o600
    running = piped(token, "--json")
    cleared = f"cleared up what process {killed.process.pid} had left: {left['interface']}"
    assert running.event("remark")["text"] == cleared
    new = running.event("connected")["id"]
    assert [session["id"] for session in ground.exit.live_sessions()] == [new]
    assert ground.client.address_seen() == EXIT_IP
    running.process.send_signal(signal.SIGINT)
    assert running.end()[0] == 0


def test_a_vanished_interface_ends_it_and_leaves_nothing(
    exit_: Appliance, client: Client, piped: Callable[..., Piped]
) -> None:
    """Somebody deletes it: status 1, and nothing else of wg-quick's is left. What other tunnels have like it stays."""
    with foreign_rules(client, 51999):
        before = state_of(client.space)
        running = piped(exit_.token(), "--json")
        interface = running.event("connected")["interface"]
        running.event("status")
        with foreign_rules(client, 51998):
            client.space.run("ip", "link", "delete", interface)
            status, _, err = running.end()
            assert (status, err) == (1, f"wg-appliance: error: there is no WireGuard interface {interface}\n")
            assert "lookup 51998" in client.space.run("ip", "rule").stdout
        assert state_of(client.space) == before


@pytest.mark.skipif(shutil.which("iptables-save") is None, reason="NOT TESTED: there is no iptables")
def test_the_interface_vanishes_without_nft(exit_: Appliance, client: Client, tmp_path: Path) -> None:
    """There wg-quick takes iptables: nothing of that is left either."""
    for folder in os.environ["PATH"].split(":"):
        for program in Path(folder).glob("*"):
            with suppress(FileExistsError):
                (tmp_path / program.name).symlink_to(program)
    (tmp_path / "nft").unlink()
    (tmp_path / "wg-quick").unlink()  # which looks into its own folder first
    shutil.copy(shutil.which("wg-quick") or "", tmp_path)

    def rules() -> list[str]:
        shown = [client.space.run(f"{program}-save").stdout for program in ("iptables", "ip6tables")]
        return [line for line in "".join(shown).splitlines() if line.startswith("-A")]

    with in_terminal(client.space, command(), environment(exit_.token(), PATH=str(tmp_path))) as terminal:
        terminal.await_text(r"handshake \d+s ago")
        assert any("DROP" in rule for rule in rules())
        client.space.run("ip", "link", "delete", "wgc0")
        assert terminal.wait() == 1, terminal.text
    assert rules() == []
    for table in ("ip raw", "ip mangle", "ip6 raw", "ip6 mangle"):  # iptables-nft leaves them, empty
        client.space.run("nft", "delete", "table", *table.split(), check=False)


def test_rules_of_a_killed_run_without_interface_are_cleared_up(
    exit_: Appliance, client: Client, piped: Callable[..., Piped]
) -> None:
    """The rules of a killed run's tunnel, whose interface has gone too, are taken away by the next run of any kind."""
    token = exit_.token()
    killed = piped(token, "--json")
    interface = killed.event("connected")["interface"]
    killed.event("status")
    killed.process.kill()
    killed.end()
    client.space.run("ip", "link", "delete", interface)
    done = client.space.run(*command("--", "true"), env=environment(token), timeout=READY_SECONDS)
    assert f"cleared up what process {killed.process.pid} had left: {interface}\n" in done.stderr
    assert "lookup 51820" not in client.space.run("ip", "rule").stdout


def test_a_failing_wg_quick_is_cleared_up_after(exit_: Appliance, client: Client, tmp_path: Path) -> None:
    """What it does not take away goes without it, and it is said why."""
    broken = tmp_path / "wg-quick"
    broken.write_text(
        f'#!/bin/sh\n[ "$1" != down ] || {{ echo "not today"; exit 1; }}\nexec {shutil.which("wg-quick")} "$@"\n'
    )
    broken.chmod(0o755)
    with foreign_rules(client, 51999):
        before = state_of(client.space)
        env = environment(exit_.token(), PATH=f"{tmp_path}:{os.environ['PATH']}")
        with in_terminal(client.space, command(), env) as terminal:
            terminal.await_text(r"handshake \d+s ago")
            terminal.press(CTRL_C)
            assert terminal.wait() == 0, terminal.text
            assert "wg-quick down failed: not today; taking wgc0 away without it" in terminal.text
        assert state_of(client.space) == before


@contextmanager
def foreign_rules(client: Client, mark: int) -> Iterator[None]:
    """Of another tunnel that wg-quick would have made."""
    rules = [
        (family, *rule)
        for family in ("-4", "-6")
        for rule in (("not", "fwmark", str(mark), "table", str(mark)), ("table", "main", "suppress_prefixlength", "0"))
    ]
    for family, *rule in rules:
        client.space.run("ip", family, "rule", "add", *rule)
    try:
        yield
    finally:
        for family, *rule in rules:
            client.space.run("ip", family, "rule", "delete", *rule)


def test_a_machine_without_ipv6_gets_a_file_without(
    ground: Ground, client: Client, piped: Callable[..., Piped]
) -> None:
    """Where the machine has no IPv6 it asks for a file without, on which wg-quick does not fail."""
    names = ("net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.default.disable_ipv6")
    client.space.run("sysctl", "-qw", f"{names[1]}=1")
    try:
        running = piped(ground.exit.token(), "--json")
        interface = running.event("connected")["interface"]
        assert "inet6" not in client.space.run("ip", "-oneline", "address", "show", "dev", interface).stdout
        running.process.send_signal(signal.SIGINT)
        assert running.end()[0] == 0
    finally:
        client.space.run("sysctl", "-qw", f"{names[1]}=0")


@pytest.mark.parametrize(
    ("token", "arguments", "status", "said"),
    [
        ("nonsense", (), 1, "the API answers 401: invalid token; was it revoked, "),
        (None, ("elsewhere",), 1, "no active node in region elsewhere; there is one in: test"),
        (None, ("--dns", "9.9.9.9"), 1, "wg-quick needs resolvconf: apt-get install openresolv"),
        (None, ("--dns", "none", "--dns", "9.9.9.9"), 2, "--dns none goes with no other"),
        (None, ("--qr", "--usage"), 2, "--qr and --usage do not go together"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    ground: Ground, token: str | None, arguments: tuple[str, ...], status: int, said: str
) -> None:
    """What cannot be is one line that says why and what to try, and the status that goes with it."""
    done = ground.client.space.run(*command(*arguments), check=False, env=environment(token or ground.token))
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr


def test_on_the_exit_itself(ground: Ground) -> None:
    """Its way to the internet would lead into its own tunnel: refused, and the session closed."""
    done = ground.world.exit.run(*command(), check=False, env=environment(ground.token))
    assert done.returncode == 1
    assert "this machine is the exit" in done.stderr


@pytest.mark.black_box
def test_plain_http_is_saved_with_the_rest(ground: Ground, tmp_path: Path) -> None:
    """What was allowed when URL and token were saved is allowed later, without a word."""
    env = environment(ground.token, HOME=str(tmp_path))
    ground.client.space.run(*command("--usage", "--save"), env=env)
    later = [each for each in command("--usage") if each not in ("--api", API, "--insecure-http")]
    del env["WG_APPLIANCE_TOKEN"]
    assert " of 2h, resets in " in ground.client.space.run(*later, env=env).stdout


@pytest.mark.black_box
def test_a_tunnel_that_is_up_already(ground: Ground, client: Client) -> None:
    """Made by hand from a file of the same exit, which lets its clients reach no more than it has to: the line names
    the tunnel, and what to do."""
    client.wg_quick(ground.exit.open(ground.token)["wg_config"])
    try:
        client.address_seen()
        done = client.space.run(*command("--usage", api=f"http://{EXIT_IP}:81"), check=False, env=environment("x"))
        assert done.returncode == 1
        advice = f"the way there leads into the tunnel {client.interface}: if that is one to this exit, end it first"
        assert f"{advice} (wg-quick down {client.interface})" in done.stderr.splitlines()[-1]
        for words in (command(), command("--", "true")):
            done = client.space.run(*words, check=False, env=environment(ground.exit.token("other")))
            assert (done.returncode, done.stdout) == (1, "")
            assert f"{client.interface} is a tunnel to the same exit" in done.stderr
    finally:
        client.down()
        (session,) = ground.exit.live_sessions()
        ground.exit.close(session["id"], ground.token)


@pytest.mark.black_box
@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("mount -t tmpfs -o ro none /run", "Read-only file system; where /run is read-only or full, mount a tmpfs"),
        # Of two pages, one is free: enough for the record, and for nothing else.
        (
            "mount -t tmpfs -o size=8k none /run; head -c 4096 /dev/zero > /run/full",
            "No space left on device; where /run is read-only or full, mount a tmpfs",
        ),
        pytest.param(
            "mount -t tmpfs none /run; touch /run/wg-appliance-client",
            "File exists; remove /run/wg-appliance-client, which is no folder",
            marks=pytest.mark.long,
        ),
    ],
)
@pytest.mark.parametrize("program", [(), ("--", "true")])
def test_no_room_in_run(ground: Ground, made: str, said: str, program: tuple[str, ...]) -> None:
    """Where nothing can be noted nothing is made, and a session that is open already is closed: one line, with two ways
    out."""
    words = ["unshare", "--mount", "sh", "-c", f'{made}; exec "$@"', "sh", *command(*program)]
    # Its network namespace has no name in there, and needs none.
    done = ground.client.space.run(*words, check=False, env=environment(ground.token))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert said in done.stderr
    assert ", or take a file for another machine: connect --config-only FILE" in done.stderr
