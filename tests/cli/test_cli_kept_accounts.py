"""On a host whose fleet keeps accounts elsewhere, commands that change them say where, and those that read go on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from appliance.config import state_file
from appliance.domain.clock import HostClock
from appliance.fleet.link.link import LinkState
from appliance.fleet.presence.directory import Presence
from appliance.fleet.status.status import KnownTokens, ReportState, fleet_status
from appliance.fleet.status.status_file import NotedStatus
from tests.support.fleet.members import a_member

if TYPE_CHECKING:
    from tests.support.cli.command_line import CommandLine

KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="


@pytest.fixture
def spoke(wga: CommandLine) -> CommandLine:
    """A spoke of the hub fra1, with an account and a token that it follows."""
    wga.config.write_text(wga.config.read_text() + '[wireguard]\nendpoint = "192.0.2.1"\n')
    wga.do("account", "create", "ada")
    wga.do("token", "create", "--account", "ada")
    join(wga, "spoke")
    return wga


def join(wga: CommandLine, role: str) -> None:
    with closing(sqlite3.connect(wga.state.store)) as db, db:
        db.execute("INSERT INTO fleet (only_row, role, node_id, gen) VALUES (1, ?, 'nod_2', 1)", (role,))
        db.execute(
            "INSERT INTO fleet_members VALUES ('nod_1', 'fra1', 'fra', 'hub', 'U', zeroblob(32), 1, NULL, '', 0)"
        )


def cut_off(
    wga: CommandLine, *, standby: bool, here: bool = False, hub_away: bool = True, silent: bool = False, age_ms: int = 0
) -> None:
    """What a server notes whose hub is away. `here`: this host is the standby. `silent`: it hears another hub alone."""
    with closing(sqlite3.connect(wga.state.store)) as db, db:
        for id_, name, role in (("nod_2", "sin1", here), ("nod_3", "ams1", not here)) if standby else ():
            row = (id_, name, "standby" if role else "spoke", f"U{id_}")
            db.execute("INSERT INTO fleet_members VALUES (?, ?, 'eu', ?, ?, zeroblob(32), 2, NULL, '', 0)", row)
    now = HostClock().now()
    link = LinkState(connected=not hub_away, since=now)
    this = Presence(a_member("nod_2", "sin1", "eu"), None, True, None, None, None, asked=False)
    hub = Presence(a_member("nod_1", "fra1", "fra"), None, not (silent or hub_away), None, None, None, asked=False)
    status = fleet_status([this, hub], "nod_2", None, link, ReportState(), KnownTokens(hold=True, until=1), now)
    wga.state.fleet_status.parent.mkdir(exist_ok=True)
    noted = NotedStatus(status, now.wall_ms, now.boot_ms - age_ms, now.boot_id)
    state_file.write_json(wga.state.fleet_status, msgspec.to_builtins(noted))


def contents(wga: CommandLine) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(wga.state.store)) as db:
        return [*db.execute("SELECT * FROM accounts"), *db.execute("SELECT * FROM tokens")]


CHANGES = {
    "account create": ("account", "create", "bob"),
    "account set": ("account", "set", "ada", "--disabled"),
    "account delete": ("account", "delete", "ada", "--yes"),
    "token create": ("token", "create", "--account", "ada"),
    "token create of a new account": ("token", "create", "--account", "bob"),
    "token revoke": ("token", "revoke", "tok_"),
}


@pytest.mark.parametrize("command", CHANGES.values(), ids=CHANGES)
def test_a_change_is_refused_with_the_place_where_it_is_made(spoke: CommandLine, command: tuple[str, ...]) -> None:
    """Status 1, one line, nothing printed and nothing changed."""
    before = contents(spoke)
    refused = spoke(*command)
    assert (refused.status, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert "accounts are kept on fra1: run this command there" in refused.err
    assert contents(spoke) == before


def test_what_reads_goes_on(spoke: CommandLine) -> None:
    """Lists and the account's own page."""
    (account,) = spoke.json("account", "list")["accounts"]
    assert spoke.json("account", "show", "ada")["id"] == account["id"]
    assert len(spoke.json("token", "list")["tokens"]) == 1


def test_an_empty_list_says_where_accounts_are_kept(wga: CommandLine) -> None:
    """A spoke that has not had the hub's yet is not told to make one."""
    single = wga("token", "list")
    assert "no tokens; wg-appliance token create --account NAME makes one" in single.out + single.err
    join(wga, "spoke")
    for what in ("account", "token"):
        done = wga(what, "list")
        assert f"no {what}s; accounts are kept on fra1" in done.out + done.err


def test_devices_are_this_exits_and_of_existing_accounts(spoke: CommandLine) -> None:
    """`device add` makes no account there."""
    spoke.do("device", "add", "ada/phone", "--public-key", KEY)
    refused = spoke("device", "add", "bob/phone")
    assert (refused.status, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert "no account bob here; accounts are kept on fra1: create it there" in refused.err
    assert [each["name"] for each in spoke.json("account", "list")["accounts"]] == ["ada"]


def test_a_hub_keeps_them_itself(wga: CommandLine) -> None:
    """Its commands work as on a single exit."""
    join(wga, "hub")
    wga.do("account", "create", "bob")
    wga.do("account", "set", "bob", "--tier", "paid")
    wga.do("token", "create", "--account", "carl")


def test_a_hub_that_is_away_has_a_standby(spoke: CommandLine) -> None:
    """It and the command that makes it the hub are named, on the standby too."""
    cut_off(spoke, standby=True)
    words = "; if fra1 is lost, wg-appliance fleet promote on ams1 makes that host the hub\n"
    for command in (*CHANGES.values(), ("device", "add", "bob/phone"), ("invoice", "ada", "--month", "2026-11")):
        refused = spoke(*command)
        assert (refused.status, refused.out, refused.err.count("\n")) == (1, "", 1)
        assert refused.err.endswith(words), command
    with closing(sqlite3.connect(spoke.state.store)) as db, db:
        db.execute("DELETE FROM fleet_members WHERE id <> 'nod_1'")
    cut_off(spoke, standby=True, here=True)
    words = "; if fra1 is lost, wg-appliance fleet promote makes this host the hub\n"
    assert spoke("account", "create", "bob").err.endswith(words)


def test_a_hub_that_is_silent_has_a_standby(spoke: CommandLine) -> None:
    """One of several that is lost is named so before another leads, though others are connected."""
    cut_off(spoke, standby=True, hub_away=False, silent=True)
    assert "if fra1 is lost, wg-appliance fleet promote on ams1" in spoke("account", "create", "bob").err


@pytest.mark.parametrize(
    "noted", [{"standby": False}, {"standby": True, "hub_away": False}, {"standby": True, "age_ms": 11_000}]
)
def test_a_standby_is_not_named_without_need(spoke: CommandLine, noted: dict[str, Any]) -> None:
    """There is none, the hub is reached, or no server that runs says that it is not."""
    cut_off(spoke, **noted)
    assert spoke("account", "create", "bob").err.endswith("fra1: run this command there\n")
