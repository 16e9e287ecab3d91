"""On one of several hubs, a command that changes what they have alike waits until a second hub has it, or says so."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from appliance.cli import admin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cli.command_line import CommandLine

FLEET = """
INSERT INTO fleet (only_row, role, node_id, gen) VALUES (1, 'hub', 'nod_1', 3);
INSERT INTO fleet_members VALUES ('nod_1', 'fra1', 'fra', 'hub', 'U1', zeroblob(32), 1, NULL, 'a:1', 7);
INSERT INTO fleet_members VALUES ('nod_2', 'ams1', 'ams', 'standby', 'U2', zeroblob(32), 1, NULL, 'b:1', 7);
INSERT INTO fleet_members VALUES ('nod_3', 'lis1', 'lis', 'standby', 'U3', zeroblob(32), 1, NULL, 'c:1', 7);
CREATE TRIGGER recorded AFTER INSERT ON accounts
BEGIN
    INSERT INTO fleet_changes (mark, kind, id) VALUES ('m', 'account', NEW.id);
END;
"""
QUEUED = "queued: no second hub has it yet"
KEEP = "UPDATE fleet SET kept_gen = 3, kept_rev = (SELECT coalesce(max(rev), 0) FROM fleet_changes), kept_mark = 'm'"


def change(wga: CommandLine, script: str) -> None:
    with closing(sqlite3.connect(wga.state.store, timeout=30)) as db, db:
        db.executescript(script)


@pytest.fixture
def hub(wga: CommandLine) -> CommandLine:
    """One of three hubs, whose server does not run."""
    wga.do("account", "create", "ada")
    change(wga, FLEET)
    return wga


@pytest.fixture
def served(hub: CommandLine) -> Iterator[CommandLine]:
    with hub.state.serving():
        yield hub


def test_a_change_waits_until_a_second_hub_has_it(served: CommandLine) -> None:
    """No longer; what it says is as ever."""
    ended = threading.Event()

    def keep() -> None:
        """Is what the server does when it is told that another hub has it."""
        while not ended.is_set():
            change(served, KEEP)
            time.sleep(0.05)

    keeping = threading.Thread(target=keep)
    keeping.start()
    try:
        done = served.do("account", "create", "bob")
        token = served.do("token", "create", "--account", "bob")
    finally:
        ended.set()
        keeping.join()
    assert "bob" in done.out
    assert QUEUED not in done.err + token.err


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param("", id="nothing"),
        pytest.param("UPDATE fleet SET kept_gen = 3, kept_rev = 0, kept_mark = 'm'", id="an earlier change"),
        pytest.param(
            "UPDATE fleet SET kept_gen = 2, kept_rev = 99, kept_mark = 'm'", id="one of an earlier generation"
        ),
    ],
)
def test_a_change_that_no_second_hub_has_in_time_is_said_to_be_queued(
    served: CommandLine, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    """It is made all the same."""
    monkeypatch.setattr(admin, "KEPT_S", 0.2)
    change(served, kept)
    done = served.do("account", "create", "bob")
    assert QUEUED in done.err
    assert "bob" in served.do("account", "list").out


def test_a_change_that_changes_nothing_of_the_fleet_waits_for_nobody(
    served: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one on a hub without another, or with one standby alone, and what only reads."""

    def asked(_self: object, _gen: int, _change: object) -> None:
        raise AssertionError("it waits")

    monkeypatch.setattr(admin.Admin, "_is_kept", asked)
    assert "ada" in served.do("account", "list").out
    change(served, "UPDATE fleet_members SET role = 'spoke' WHERE id = 'nod_3'")
    assert "bob" in served.do("account", "create", "bob").out
    change(served, "UPDATE fleet_members SET role = 'standby'; UPDATE fleet SET role = 'standby'")
    refused = served("account", "create", "eve")
    assert refused.status == 1
    assert "accounts are kept on" in refused.err


def test_without_a_server_nobody_is_waited_for(hub: CommandLine) -> None:
    """The hubs hear of it when it runs."""
    assert QUEUED in hub.do("account", "create", "bob").err
