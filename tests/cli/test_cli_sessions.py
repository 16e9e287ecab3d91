"""wg-appliance session and wg-appliance node."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

import pytest

from appliance.domain.accounting import Reading
from appliance.domain.charges import Amount
from appliance.domain.clock import HostClock, Moment
from appliance.domain.entities import Baseline, Reason, State
from appliance.store.queries import node as node_row
from appliance.store.queries import peers
from appliance.store.queries import sessions as rows
from tests.support.cli.command_line import NOW
from tests.support.cli.on_terminal import on_terminal

if TYPE_CHECKING:
    import aiosqlite

    from tests.support.cli.command_line import CommandLine


@pytest.fixture
def alice(wga: CommandLine) -> CommandLine:
    """With accounts alice and bob."""
    for name in ("alice", "bob"):
        wga.do("account", "create", name)
    return wga


def test_a_session_is_shown_whole(alice: CommandLine) -> None:
    """Every field, in the API's names; null for what has not happened."""
    session = alice.open_session("alice", 7)
    shown = alice.json("session", "show", session)
    assert shown == {
        "id": session,
        "account": "alice",
        "device_id": None,
        "device_name": None,
        "tier": "free",
        "state": "live",
        "region": "local",
        "public_ip": "192.0.2.1",
        "public_key": base64.b64encode(bytes([7]) * 32).decode(),
        "address": "10.101.0.7",
        "address6": "fd65:7869:7400::7",
        "created_at": "2026-09-21T14:13:20Z",
        "expires_at": "2026-09-21T15:13:20Z",
        "last_handshake_at": None,
        "bytes_in": 0,
        "bytes_out": 0,
        "terminated_at": None,
        "terminated_reason": None,
        "note": "",
        "seconds": 0,
    }
    del shown["seconds"]  # of one session only
    assert alice.json("session", "list") == {"sessions": [shown]}


def test_the_seconds_of_a_session_are_up_to_now(alice: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are stored, and those in which its tunnel could carry since: a number to a script."""
    session = alice.open_session("alice", 7)

    async def carry(db: aiosqlite.Connection) -> None:
        await node_row.write_heartbeat(db, NOW)
        await db.execute("UPDATE peers SET counted_ms = 3600900, carries_until_ms = counted_until_ms + 180000")

    alice.write(carry)
    for passed_ms, seconds, shown in ((60_000, 3660, "1:01:00"), (86_400_000, 3780, "1:03:00")):
        now = Moment(NOW.wall_ms + passed_ms, NOW.boot_ms + passed_ms, NOW.boot_id)
        monkeypatch.setattr(HostClock, "now", lambda _, now=now: now)
        assert alice.json("session", "show", session)["seconds"] == seconds
        assert re.search(rf"^seconds +{shown}$", alice.do("session", "show", session).out, re.MULTILINE)


def test_bytes_are_readable_in_tables_and_raw_in_json(alice: CommandLine) -> None:
    """1258291 bytes: 1.2 MiB to a human, the number to a script."""
    session = alice.open_session("alice", 2)

    async def move(db: aiosqlite.Connection) -> None:
        baseline = Baseline(NOW.boot_id, 1, 1258291, 512)
        before = await rows.by_id(db, session)
        assert before is not None
        moved = Amount(0, 1258291, 512)
        await peers.add_readings(db, [Reading(moved, NOW.wall_ms, NOW.wall_ms, before, baseline)])

    alice.write(move)
    assert alice.json("session", "show", session)["bytes_in"] == 1258291
    for command in (("list",), ("show", session)):
        human = alice.do("session", *command).out
        assert "1.2 MiB" in human
        assert "512 B" in human


def test_the_list_is_newest_first_and_can_be_narrowed(alice: CommandLine) -> None:
    """--live leaves out what is ending, --account the others'; pending sessions are nobody's yet."""
    first, second, third = (alice.open_session(name, n) for n, name in enumerate(("alice", "bob", "alice"), start=2))
    alice.open_session("alice", 5, State.PENDING)
    alice.do("session", "terminate", first)

    def listed(*options: str) -> list[str]:
        return [s["id"] for s in alice.json("session", "list", *options)["sessions"]]

    assert listed() == [third, second, first]
    assert listed("--live") == [third, second]
    assert listed("--account", "alice") == [third, first]
    assert listed("--account", "alice", "--live") == [third]
    assert alice("session", "list", "--account", "nobody").status == 1


def test_terminate_keeps_the_operators_words(alice: CommandLine) -> None:
    """The session is closing, with the text as what its client is told."""
    session = alice.open_session("alice", 2)
    alice.do("session", "terminate", session, "--reason", "abuse report 17")
    shown = alice.json("session", "show", session)
    assert (shown["state"], shown["terminated_reason"], shown["note"]) == (
        "closing",
        "abuse report 17",
        "abuse report 17",
    )


@pytest.mark.parametrize("note", ["", " ", "a\nb", "x" * 201, "idle", "admin", "paused", "account_ended"])
def test_a_reason_is_one_printable_line_in_words_of_its_own(alice: CommandLine, note: str) -> None:
    """Anything else, such as a reason that only the exit gives, is a usage error and ends nothing."""
    session = alice.open_session("alice", 2)
    assert alice("session", "terminate", session, "--reason", note).status == 2
    assert alice.json("session", "show", session)["state"] == "live"


def test_terminating_what_has_ended_changes_nothing(alice: CommandLine) -> None:
    """Status 0 and a remark; reason and note stay, and the server is not asked for anything."""
    session = alice.open_session("alice", 2)

    async def end(db: aiosqlite.Connection) -> None:
        await rows.mark_terminated(db, [(session, Reason.IDLE, NOW.wall_ms)])

    alice.write(end)
    before = alice.json("session", "show", session)
    done = alice.do("session", "terminate", session, "--reason", "late")
    assert done.err == f"session {session} had ended already\n"
    assert alice.json("session", "show", session) == before
    assert before["terminated_reason"] == "idle"


def test_terminating_what_is_ending_keeps_its_reason(alice: CommandLine) -> None:
    """It is not said to have been terminated, and its client is told why it ended."""
    session = alice.open_session("alice", 2)

    async def begin_to_end(db: aiosqlite.Connection) -> None:
        await rows.mark_closing(db, [session], Reason.IDLE)

    alice.write(begin_to_end)
    done = alice.do("session", "terminate", session, "--reason", "late")
    assert done.err.splitlines()[-1] == f"session {session} had ended already"
    assert alice.json("session", "show", session)["terminated_reason"] == "idle"


@pytest.mark.parametrize("command", ["show", "terminate"])
def test_an_unknown_or_pending_session_is_not_found(alice: CommandLine, command: str) -> None:
    """Status 1 and one line for both: nobody was told of a pending one."""
    pending = alice.open_session("alice", 2, State.PENDING)
    for session in ("ses_nowhere", pending):
        refused = alice("session", command, session)
        assert (refused.status, refused.out, refused.err.count("\n")) == (1, "", 1)
        assert f"no session {session}" in refused.err


def test_an_old_session_outside_todays_subnet_has_no_address(alice: CommandLine) -> None:
    """After the subnet was made smaller, old sessions can still be listed."""
    alice.open_session("alice", 200)
    text = alice.config.read_text(encoding="utf-8")
    alice.config.write_text(text + '[wireguard]\nsubnet = "10.101.0.0/28"\nsubnet6 = ""\n', encoding="utf-8")
    (listed,) = alice.json("session", "list")["sessions"]
    assert (listed["address"], listed["address6"]) == (None, None)
    alice.do("session", "list")


def test_node_status_counts(alice: CommandLine) -> None:
    """Live sessions, addresses that are taken (by pending and closing ones too), and how many there are."""
    alice.open_session("alice", 2)
    alice.open_session("alice", 3, State.PENDING)
    ending = alice.open_session("bob", 4)
    alice.do("session", "terminate", ending)
    status = alice.json("node", "status")
    assert status | {"name": ""} == {
        "name": "",
        "region": "local",
        "api": "http://127.0.0.1:8080",
        "public_ip": "auto",
        "interface": "wga0",
        "serving": False,
        "drained": False,
        "live_sessions": 1,
        "addresses_in_use": 3,
        "addresses_of_devices": 0,
        "addresses_capacity": 253,
        "store": str(alice.state.store),
        "clock_doubted": False,
    }


def test_drain_and_resume(alice: CommandLine) -> None:
    """Both may be repeated; a drain leaves live sessions alone."""
    alice.open_session("alice", 2)
    for command, drained in (("drain", True), ("drain", True), ("resume", False), ("resume", False)):
        alice.do("node", command)
        status = alice.json("node", "status")
        assert (status["drained"], status["live_sessions"]) == (drained, 1)


def test_drain_now_ends_the_live_sessions(alice: CommandLine) -> None:
    """All live sessions are closing, reason drained; one that was closing keeps its reason."""
    first, second = alice.open_session("alice", 2), alice.open_session("bob", 3)
    alice.do("session", "terminate", first)
    alice.do("node", "drain", "--now")
    reasons = {s["id"]: s["terminated_reason"] for s in alice.json("session", "list")["sessions"]}
    assert reasons == {first: "admin", second: "drained"}


def test_a_serving_node_says_so(alice: CommandLine) -> None:
    """While a server holds the state's lock, status is serving."""
    with alice.state.serving():
        assert alice.json("node", "status")["serving"] is True
        assert re.search("^serving +yes$", alice.do("node", "status").out, re.MULTILINE)
    assert re.search("^serving +no$", alice.do("node", "status").out, re.MULTILINE)


def test_a_session_by_the_beginning_of_its_id(alice: CommandLine) -> None:
    """As long as only one session has it; a pending one has none yet."""
    first, second = alice.open_session("alice", 0xA1), alice.open_session("alice", 0xA2)
    alice.open_session("alice", 0xA3, State.PENDING)
    assert first[:-1] == second[:-1]
    ambiguous = alice("session", "show", first[:-1])
    assert (ambiguous.status, ambiguous.err) == (
        1,
        f"wg-appliance: error: session {first[:-1]} may be {first}, {second}; give more of the id\n",
    )
    done = alice.do("session", "terminate", second)
    assert done.err.endswith(f"session {second} of alice terminated: admin\n")


def test_a_limit_of_what_is_listed(alice: CommandLine) -> None:
    """The newest, and that there are more; 0 is all, which is what a script gets unasked."""
    sessions = [alice.open_session("alice", n) for n in range(2, 6)]
    assert [s["id"] for s in alice.json("session", "list", "--limit", "2")["sessions"]] == sessions[:1:-1]
    done = alice.do("session", "list", "--limit", "2")
    assert (done.out.count("\n"), done.err) == (3, "the newest 2 sessions; --limit 0 lists all\n")
    for unlimited in ((), ("--limit", "0"), ("--limit", "4")):
        done = alice.do("session", "list", *unlimited)
        assert (done.out.count("\n"), done.err) == (5, "")
    assert [a["name"] for a in alice.json("account", "list", "--limit", "1")["accounts"]] == ["bob"]
    for bad in ("-1", "many"):
        assert alice("session", "list", "--limit", bad).status == 2


def test_on_a_terminal(alice: CommandLine) -> None:
    """Tables fit it and show the newest fifty; what cannot be undone is asked for, unless `--yes` answers."""
    for offset in range(2, 62):
        alice.open_session("alice", offset)
    shown = on_terminal(alice, "session", "list", columns=80)
    assert max(map(len, shown.splitlines())) <= 80
    assert sum(line.startswith("ses_") for line in shown.splitlines()) == 50
    # What tells sessions apart is whole; what is alike on one exit has gone.
    assert re.search(r"^ses_\S+~  alice .* 10\.101\.0\.61 .* never ", shown, re.MULTILINE)
    assert "REGION" not in shown.splitlines()[1]
    assert "the newest 50 sessions; --limit 0 lists all" in shown
    shown = on_terminal(alice, "account", "delete", "bob", said="n")
    assert "Delete account bob, its tokens and devices, and end its sessions? [y/N]" in shown
    shown = on_terminal(alice, "device", "remove", "alice/phone", said="n")
    assert "Remove device alice/phone? Its file will be good no more. [y/N]" in shown
    assert "no device alice/phone" in on_terminal(alice, "device", "remove", "alice/phone", "--yes")
    assert {a["name"] for a in alice.json("account", "list")["accounts"]} == {"alice", "bob"}
    assert "[y/N]" not in on_terminal(alice, "account", "delete", "bob", "--yes")
    assert {a["name"] for a in alice.json("account", "list")["accounts"]} == {"alice"}
    assert "[y/N]" in on_terminal(alice, "node", "drain", "--now", said="n")
    assert alice.json("node", "status")["drained"] is False
