"""`wg-appliance selftest` against a real exit: what it proves, what it says when something is wrong, what it leaves."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import signal
from typing import TYPE_CHECKING

import pytest

from appliance.ops.selftest.transfer import CHUNK
from tests.support.certificates import self_signed
from tests.support.selftest.exit_tested import OWN_IP, STEPS, exit_and_host, outcomes, stop_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.selftest.exit_tested import Run, TestedExit

pytestmark = pytest.mark.timeout(600)

NOBODY = pwd.getpwnam("nobody")

# Rules of somebody else's firewall. A verdict of drop counts, whatever our own table says.
DROP_HANDSHAKES = ("input", "udp dport 51820 drop")
DROP_FORWARDED = ("forward", "drop")
DROP_FORWARDED_IPV6 = ("forward", "meta nfproto ipv6 drop")


@pytest.fixture(scope="module")
def shared(backend: str) -> Iterator[TestedExit]:
    with exit_and_host(backend) as made:
        made.start()
        yield made


@pytest.fixture
def tested(shared: TestedExit) -> Iterator[TestedExit]:
    """It serves, behind a 1:1 NAT. Afterwards nothing may be left of what the self-test made."""
    before = shared.settled()
    yield shared
    shared.remove_firewall()
    shared.assert_nothing_left(before)


def assert_failed(run: Run, step: str, *said: str) -> None:
    """At this step and no other; one line on stderr says so, why, and what to try."""
    assert run.status == 1, run
    assert [name for name, word in outcomes(run.out) if word == "failed"] == [step]
    assert outcomes(run.out)[-1] == ("cleared", "ok")
    assert run.err.startswith(f"wg-appliance: error: the self-test failed at {step}: ")
    assert run.err.count("\n") == 1
    for words in said:
        assert words in run.err


@pytest.mark.under_kernel
def test_every_step_passes_behind_a_nat(tested: TestedExit, show: Callable[[str], None]) -> None:
    """The public address is not the host's: every step passes, each with its time. What was counted is a megabyte
    each way over IPv4 and over IPv6 at least, and the final figures are no smaller."""
    run = tested.selftest("--json")
    assert (run.status, run.err) == (0, ""), run
    assert [step["step"] for step in run.steps] == list(STEPS)
    details = {step["step"]: step["detail"] for step in run.steps}
    counted, final = ([int(word) for word in details[name].split() if word.isdigit()] for name in ("counted", "closed"))
    assert min(counted) >= 2 * 128 * CHUNK
    assert final >= counted
    show(f"{tested.exit.backend}: {run.figures}")


def test_every_step_passes_at_its_own_address_over_tls(backend: str, tmp_path: Path) -> None:
    """The public address is the host's own, and is what the client dials; the target sees the host's end of its own
    link, as by any that the public address does not belong to. The API is HTTPS."""
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
        assert re.search(r"seen from 192\.0\.2\.\d+ and 2001:db8:", run.out), run.out
        tested.assert_nothing_left(before)


def test_every_step_passes_without_ipv6(backend: str) -> None:
    """An exit whose tunnel is IPv4 alone is tested over that."""
    with exit_and_host(backend, WIREGUARD_SUBNET6="") as tested:
        tested.start()
        run = tested.selftest()
        assert run.status == 0, run
        assert "2001:db8:" not in run.out


def test_a_store_of_another_user_stays_theirs(backend: str) -> None:
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


def test_a_missing_server_fails_at_the_api(backend: str) -> None:
    """Nobody answers: it says where it asked, and how to start the server."""
    with exit_and_host(backend) as tested:
        run = tested.selftest()
        assert_failed(run, "api", "the API does not answer at unix:", "start wg-appliance serve")


def test_a_drained_exit_fails_at_the_session(tested: TestedExit) -> None:
    """A drained exit takes no session; the API's own words are shown."""
    tested.exit.command("node", "drain")
    run = tested.selftest()
    tested.exit.command("node", "resume")
    assert_failed(run, "session", "503: no active node", "wg-appliance node status")


def test_dropped_handshakes_fail_at_the_handshake(tested: TestedExit) -> None:
    """A firewall that drops the UDP port is told by the handshake that does not come."""
    tested.set_up_firewall(*DROP_HANDSHAKES)
    assert_failed(tested.selftest(), "handshake", "port 51820", "firewall may drop UDP", "try wg-appliance doctor")


def test_dropped_forwarding_fails_at_the_traffic(tested: TestedExit) -> None:
    """A FORWARD policy of somebody else is told by the target that is not reached."""
    tested.set_up_firewall(*DROP_FORWARDED)
    run = tested.selftest()
    assert_failed(run, "traffic", "timed out", f"what is forwarded from {tested.exit.interface} to", "doctor")


def test_dropped_ipv6_forwarding_fails_at_the_traffic(tested: TestedExit) -> None:
    """What works over IPv4 alone does not work: the target that is not reached is the IPv6 one."""
    tested.set_up_firewall(*DROP_FORWARDED_IPV6)
    assert_failed(tested.selftest(), "traffic", "the target 2001:db8:", "is not reached")


def test_a_blocked_target_fails_at_the_host(backend: str) -> None:
    """Where every address that the test could have is blocked, it says so before it makes anything."""
    blocked = "192.0.2.0/24,198.51.100.0/24,203.0.113.0/24"
    with exit_and_host(backend, EGRESS_EXTRA_BLOCK=blocked) as tested:
        tested.start()
        assert_failed(tested.selftest(), "host", "no addresses for the test", "egress.extra_block")


def test_a_token_of_another_store_fails_at_the_session(tested: TestedExit, tmp_path: Path) -> None:
    """A token of another store than the server's is refused; it says which store was meant."""
    with tested.commands_configured(NODE_STATE_DIR=str(tmp_path / "other")):
        tested.exit.command("init")
        run = tested.selftest()
    assert_failed(run, "session", f"a token made in {tmp_path / 'other'}: is that its state_dir?")


def test_no_store_is_made_where_there_is_none(tested: TestedExit, tmp_path: Path) -> None:
    """Where there is no store none is made."""
    with tested.commands_configured(NODE_STATE_DIR=str(tmp_path / "none")):
        run = tested.selftest()
    assert (run.status, run.out) == (1, "")
    assert run.err.startswith(f"wg-appliance: error: no store at {tmp_path / 'none'}/store.sqlite: ")
    assert not (tmp_path / "none").exists()


def test_a_second_selftest_ends_at_once(tested: TestedExit) -> None:
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


def test_ctrl_c_ends_it_at_once(tested: TestedExit) -> None:
    """Ctrl-C in the middle of the traffic ends it at once."""
    tested.set_up_firewall(*DROP_FORWARDED)  # the traffic waits
    run = stop_at("traffic", tested.begin_selftest(), signal.SIGINT)
    assert_failed(run, "traffic", "interrupted by SIGINT")


def test_sigterm_ends_it_and_json_says_not_passed(tested: TestedExit) -> None:
    """SIGTERM likewise. What was found until then is printed, and says that the test has not passed."""
    tested.set_up_firewall(*DROP_FORWARDED)
    running = tested.begin_selftest("--json")
    tested.await_sessions(1)
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=90)
    assert running.returncode == 1
    assert not json.loads(out)["passed"]
    assert json.loads(out)["steps"][-1]["step"] == "cleared"


def test_the_next_run_clears_up_after_a_killed_one(tested: TestedExit) -> None:
    """What a killed run left (its session, its account, on the userspace backend its wireguard-go) the next one takes
    away, and passes."""
    tested.set_up_firewall(*DROP_FORWARDED)
    assert stop_at("traffic", tested.begin_selftest(), signal.SIGKILL).status == -signal.SIGKILL
    assert tested.left_behind()["accounts"] == [(1,)]
    assert len(tested.exit.peers()) == 1
    tested.remove_firewall()
    run = tested.selftest()
    assert run.status == 0, run


def test_a_session_that_cannot_be_ended_is_named(tested: TestedExit) -> None:
    """A session that nobody can end is named; the next run, with a server, takes it away."""
    tested.set_up_firewall(*DROP_FORWARDED)
    running = tested.begin_selftest()
    tested.await_sessions(1)
    tested.exit.kill()
    out, err = running.communicate(timeout=90)
    assert ("cleared", "failed") in outcomes(out)
    assert "ends when the server runs, which it does not: ses_" in err
    tested.remove_firewall()
    tested.start()
    assert tested.selftest().status == 0
