"""`wg-appliance selftest` against a real exit: what it proves, what it says when something is wrong, what it leaves."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import signal
from typing import TYPE_CHECKING

import pytest

from appliance.selftest.transfer import CHUNK
from tests.certificates import self_signed
from tests.selftest.exit_tested import OWN_IP, STEPS, exit_and_host, outcomes, stop_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.selftest.exit_tested import Run, TestedExit

pytestmark = pytest.mark.timeout(600)

NOBODY = pwd.getpwnam("nobody")

# Somebody else's firewall. A verdict of drop counts, whatever our own table says.
OTHER = """
table inet other {{
  chain other {{
    type filter hook {hook} priority 0;
    {rule} drop
  }}
}}
"""
DROP_HANDSHAKES = OTHER.format(hook="input", rule="udp dport 51820")
DROP_FORWARDED = OTHER.format(hook="forward", rule="")


@pytest.fixture
def tested(backend: str) -> Iterator[TestedExit]:
    with exit_and_host(backend) as made:
        made.start()
        yield made


def assert_failed(run: Run, step: str, *said: str) -> None:
    """At this step and no other; one line on stderr says so, why, and what to try."""
    assert run.status == 1, run
    assert [name for name, word in outcomes(run.out) if word == "failed"] == [step]
    assert outcomes(run.out)[-1] == ("cleared", "ok")
    assert run.err.startswith(f"wg-appliance: error: the self-test failed at {step}: ")
    assert run.err.count("\n") == 1
    for words in said:
        assert words in run.err


def test_behind_a_nat(tested: TestedExit, show: Callable[[str], None]) -> None:
    """The public address is not the host's: every step passes, each with its time, and the host is as before."""
    before = tested.left_behind()
    run = tested.selftest("--json")
    assert run.status == 0, run
    assert [step["step"] for step in run.steps] == list(STEPS)
    assert run.err == ""
    assert tested.left_behind() == before
    show(f"{tested.exit.backend}: {run.figures}")


def test_with_its_own_address_over_tls(backend: str, tmp_path: Path) -> None:
    """The public address is the host's own, and is what the client dials and the target sees. The API is HTTPS."""
    cert, key = self_signed(tmp_path, "exit.example")
    settings = {
        "NODE_PUBLIC_IP": OWN_IP,
        "API_LISTEN": "0.0.0.0:8443",
        "API_TLS_CERT": str(cert),
        "API_TLS_KEY": str(key),
    }
    with exit_and_host(backend, **settings) as tested:
        tested.inside("ip", "link", "add", "wan", "type", "veth", "peer", "name", "far")
        tested.inside("ip", "address", "add", f"{OWN_IP}/24", "dev", "wan")
        tested.inside("ip", "link", "set", "wan", "up")
        tested.start()
        before = tested.left_behind()
        run = tested.selftest()
        assert run.status == 0, run
        assert outcomes(run.out) == [(step, "ok") for step in STEPS]
        assert f"dials {OWN_IP} port 51820" in run.out
        assert f"seen from {OWN_IP} and 2001:db8:" in run.out
        assert tested.left_behind() == before


def test_without_ipv6(backend: str) -> None:
    """An exit whose tunnel is IPv4 alone is tested over that."""
    with exit_and_host(backend, WIREGUARD_SUBNET6="") as tested:
        tested.start()
        run = tested.selftest()
        assert run.status == 0, run
        assert "2001:db8:" not in run.out


def test_the_bytes_are_those_of_the_session(tested: TestedExit) -> None:
    """A megabyte each way over IPv4 and over IPv6 at least, as the session's status says; the final figures are no
    smaller."""
    steps = {step["step"]: step["detail"] for step in tested.selftest("--json").steps}
    figures = [[int(word) for word in steps[name].split() if word.isdigit()] for name in ("counted", "closed")]
    assert min(figures[0]) >= 2 * 128 * CHUNK
    assert figures[1] >= figures[0]


def test_again(tested: TestedExit) -> None:
    """It may be repeated; each run is as the first."""
    for _ in range(2):
        assert tested.selftest().status == 0


def test_a_store_of_another_user(backend: str) -> None:
    """Root tests an exit whose state is its service's: every file stays the service's."""
    with exit_and_host(backend) as tested:
        state = tested.exit.state
        state.parent.chmod(0o755)
        for path in (state, *state.iterdir()):
            os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
        tested.start()
        made_by_root = {path.name for path in state.iterdir() if path.stat().st_uid == 0}
        run = tested.selftest()
        assert run.status == 0, run
        assert {path.name for path in state.iterdir() if path.stat().st_uid == 0} == made_by_root


# What is wrong -----------------------------------------------------------------------------------------


def test_no_server(backend: str) -> None:
    """Nobody answers: it says where it asked, and how to start the server."""
    with exit_and_host(backend) as tested:
        run = tested.selftest()
        assert_failed(run, "api", "the API does not answer at unix:", "start wg-appliance serve")


def test_drained(tested: TestedExit) -> None:
    """A drained exit takes no session; the API's own words are shown."""
    tested.exit.command("node", "drain")
    before = tested.left_behind()
    assert_failed(tested.selftest(), "session", "503: no active node", "wg-appliance node status")
    assert tested.left_behind() == before


def test_handshakes_are_dropped(tested: TestedExit) -> None:
    """A firewall that drops the UDP port is told by the handshake that does not come."""
    tested.inside("nft", "-f", "-", text_input=DROP_HANDSHAKES)
    before = tested.left_behind()
    assert_failed(tested.selftest(), "handshake", "port 51820", "firewall may drop UDP", "try wg-appliance doctor")
    assert tested.left_behind() == before


def test_forwarding_is_dropped(tested: TestedExit) -> None:
    """A FORWARD policy of somebody else is told by the target that is not reached."""
    tested.inside("nft", "-f", "-", text_input=DROP_FORWARDED)
    before = tested.left_behind()
    run = tested.selftest()
    assert_failed(run, "traffic", "timed out", f"what is forwarded from {tested.exit.interface} to", "doctor")
    assert tested.left_behind() == before


def test_ipv6_forwarding_is_dropped(tested: TestedExit) -> None:
    """What works over IPv4 alone does not work: the target that is not reached is the IPv6 one."""
    tested.inside("nft", "-f", "-", text_input=OTHER.format(hook="forward", rule="meta nfproto ipv6"))
    assert_failed(tested.selftest(), "traffic", "the target 2001:db8:", "is not reached")


def test_a_target_that_the_policy_blocks(backend: str) -> None:
    """Where every address that the test could have is blocked, it says so before it makes anything."""
    blocked = "192.0.2.0/24,198.51.100.0/24,203.0.113.0/24"
    with exit_and_host(backend, EGRESS_EXTRA_BLOCK=blocked) as tested:
        tested.start()
        assert_failed(tested.selftest(), "host", "no addresses for the test", "egress.extra_block")


def test_another_store(tested: TestedExit, tmp_path: Path) -> None:
    """A token of another store than the server's is refused; it says which store was meant."""
    theirs = tested.exit.environment
    tested.exit.environment = theirs | {"WG_APPLIANCE_NODE_STATE_DIR": str(tmp_path / "other")}
    tested.exit.command("init")
    run = tested.selftest()
    tested.exit.environment = theirs
    assert_failed(run, "session", f"a token made in {tmp_path / 'other'}: is that its state_dir?")


def test_no_store(tested: TestedExit, tmp_path: Path) -> None:
    """Where there is no store none is made."""
    tested.exit.environment = tested.exit.environment | {"WG_APPLIANCE_NODE_STATE_DIR": str(tmp_path / "none")}
    run = tested.selftest()
    assert (run.status, run.out) == (1, "")
    assert run.err.startswith(f"wg-appliance: error: no store at {tmp_path / 'none'}/store.sqlite: ")
    assert not (tmp_path / "none").exists()


def test_one_at_a_time(tested: TestedExit) -> None:
    """A second one beside the first ends at once and disturbs nothing."""
    directory = os.open(tested.exit.state, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        run = tested.selftest()
    finally:
        os.close(directory)
    assert (run.status, run.out) == (1, "")
    assert "another self-test of this exit is running" in run.err


# What it leaves ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tested: TestedExit, sign: signal.Signals) -> None:
    """Ctrl-C or SIGTERM in the middle of the traffic: everything is taken away, and the host is as before."""
    tested.inside("nft", "-f", "-", text_input=DROP_FORWARDED)  # the traffic waits
    before = tested.left_behind()
    run = stop_at("traffic", tested.begin_selftest(), sign)
    assert_failed(run, "traffic", f"interrupted by {sign.name}")
    assert tested.left_behind() == before


def test_interrupted_with_json(tested: TestedExit) -> None:
    """What was found until then is printed all the same, and says that the test has not passed."""
    tested.inside("nft", "-f", "-", text_input=DROP_FORWARDED)
    running = tested.begin_selftest("--json")
    tested.await_sessions(1)
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=90)
    assert running.returncode == 1
    assert not json.loads(out)["passed"]
    assert json.loads(out)["steps"][-1]["step"] == "cleared"


def test_killed(tested: TestedExit) -> None:
    """What a killed run left (its session, its account, on the userspace backend its wireguard-go) the next one takes
    away, and passes."""
    before = tested.left_behind()
    tested.inside("nft", "-f", "-", text_input=DROP_FORWARDED)
    assert stop_at("traffic", tested.begin_selftest(), signal.SIGKILL).status == -signal.SIGKILL
    assert tested.left_behind()["accounts"] == [(1,)]
    assert len(tested.exit.peers()) == 1
    tested.inside("nft", "delete", "table", "inet", "other")
    run = tested.selftest()
    assert run.status == 0, run
    assert tested.left_behind() == before


def test_the_server_goes_away(tested: TestedExit) -> None:
    """A session that nobody can end is named; the next run, with a server, takes it away."""
    before = tested.left_behind()
    tested.inside("nft", "-f", "-", text_input=DROP_FORWARDED)
    running = tested.begin_selftest()
    tested.await_sessions(1)
    tested.exit.kill()
    out, err = running.communicate(timeout=90)
    assert ("cleared", "failed") in outcomes(out)
    assert "ends when the server runs, which it does not: ses_" in err
    tested.inside("nft", "delete", "table", "inet", "other")
    tested.start()
    assert tested.selftest().status == 0
    assert tested.left_behind() == before
