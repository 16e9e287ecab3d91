"""wg-appliance backup and restore of a host in a fleet: who it is there is saved, and comes back with the store."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from appliance.domain.clock import HostClock
from appliance.fleet.membership.identity import FleetFolder, new_fleet_id
from appliance.ops.backup import fleet_files
from appliance.store.queries import fleet_reports, fleet_requests, fleet_state
from tests.support.cli.backups import content, members, refused, write_members
from tests.support.cli.fleet_host_alone import FLEET, enter

if TYPE_CHECKING:
    from pathlib import Path

    import aiosqlite

    from tests.support.cli.command_line import CommandLine


@pytest.fixture
def fra(used: CommandLine) -> CommandLine:
    """The hub of a fleet."""
    enter(used)
    return used


@pytest.fixture
def saved(fra: CommandLine, tmp_path: Path) -> Path:
    """A backup of it."""
    file = tmp_path / "fra.tar"
    fra.do("backup", str(file))
    return file


def identity(wga: CommandLine) -> dict[str, bytes]:
    return {f"fleet/{name}": (wga.state.path / "fleet" / name).read_bytes() for name in fleet_files.FILES}


def lose_all(wga: CommandLine) -> None:
    shutil.rmtree(wga.state.path)


def one(wga: CommandLine, sql: str) -> object:
    with closing(sqlite3.connect(wga.state.store)) as db:
        return db.execute(sql).fetchone()[0]


def used_of(wga: CommandLine) -> tuple[int, int]:
    """How many bytes and seconds the account has used of its windows."""
    usage = wga.json("usage", "ada")
    return usage["bytes_used"], usage["session_seconds"]


TRIGGERS = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'fleet%'"


def test_the_names_are_those_of_the_fleet_s_folder(fra: CommandLine) -> None:
    """All that it writes is saved."""
    assert {file.name for file in (fra.state.path / "fleet").iterdir()} == set(fleet_files.FILES)


def test_a_hub_comes_back_on_an_empty_host(fra: CommandLine, saved: Path) -> None:
    """Keys, membership and the authority's key, for the owner alone; the store knows that it was restored."""
    before = identity(fra)
    found = members(saved)
    assert {name: data for name, data in found.items() if name.startswith("fleet/")} == before
    assert json.loads(found["manifest.json"])["format"] == 2
    lose_all(fra)
    done = fra.do("restore", str(saved))
    assert "note:" not in done.err
    assert identity(fra) == before
    folder = fra.state.path / "fleet"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    assert one(fra, "SELECT restored FROM fleet_reporting") == 1
    assert {path.name for path in fra.state.path.iterdir()} == {"store.sqlite", "server.key", "serve.lock", "fleet"}


def test_as_a_new_node_it_is_a_single_exit(fra: CommandLine, saved: Path) -> None:
    """No file, row or trigger of the fleet is there; sessions stay, what has ended is reported to no fleet again. What
    was used of quotas is the old node's, also in the fleet, where it would count once more."""
    opened = "UPDATE accounts SET bytes_opened_at = ?1, bytes_used = 5, time_opened_at = ?1, time_used_ms = 6000"
    with closing(sqlite3.connect(fra.state.store)) as db, db:
        db.execute(opened, (HostClock().now().wall_ms,))
    assert used_of(fra) == (5, 6)
    fra.write(lambda db: fleet_requests.intend(db, "nod_1", "drain", b"{}", 0))
    fra.do("backup", str(saved))
    lose_all(fra)
    fra.do("restore", str(saved), "--as-new-node")
    assert not (fra.state.path / "fleet").exists()
    assert one(fra, TRIGGERS) == 0
    for table in ("fleet", "fleet_changes", "fleet_intents"):
        assert one(fra, f"SELECT count(*) FROM {table}") == 0, table  # noqa: S608 (names from above)
    assert len(fra.json("session", "list")["sessions"]) == 2
    assert used_of(fra) == (0, 0)
    enter(fra)

    async def nothing_older(db: aiosqlite.Connection) -> None:
        assert await fleet_reports.note_older(db, 10) == 0

    fra.write(nothing_older)


def test_the_same_member_keeps_its_newer_files(fra: CommandLine, saved: Path) -> None:
    """As its keys are others when it has left and joined again since."""
    folder = FleetFolder(fra.state.path)
    folder.leave()
    enter(fra)
    before = identity(fra)
    assert before["fleet/keys.json"] != members(saved)["fleet/keys.json"]
    fra.do("restore", str(saved))
    assert identity(fra) == before


def test_a_damaged_membership_comes_from_the_backup(fra: CommandLine, saved: Path) -> None:
    """So does a hub's secret that is missing. What was there is kept with the rest."""
    before = identity(fra)
    (fra.state.path / "fleet" / "hub.json").unlink()
    fra.do("restore", str(saved))
    assert identity(fra) == before
    shutil.rmtree(next(fra.state.path.glob("before-restore-*")))
    FleetFolder(fra.state.path).membership_file.write_text("{")
    fra.do("restore", str(saved))
    assert identity(fra) == before
    (kept,) = fra.state.path.glob("before-restore-*")
    assert (kept / "fleet" / "membership.json").read_text() == "{"


def be_another(wga: CommandLine, fleet_id: str) -> None:
    """Makes the host, which has lost all, a spoke with keys of its own."""
    lose_all(wga)
    wga.do("init")
    enter(wga, fleet_id, "spoke", "ams1")


def test_who_is_another_in_a_fleet_is_refused(fra: CommandLine, saved: Path) -> None:
    """In another fleet, or as another host of this one; a new node, too, is made of a host in no fleet alone."""
    for fleet_id, of in ((new_fleet_id(), "fra1 of another fleet"), (FLEET, "fra1 (hub) of this fleet")):
        be_another(fra, fleet_id)
        before = content(fra.state.path)
        assert f"this host is ams1 in a fleet, and {saved} is of {of}: take this one" in refused(
            fra, "restore", str(saved)
        )
        assert "it can be restored as ams1, or leaves first" in refused(fra, "restore", str(saved), "--as-new-node")
        assert content(fra.state.path) == before


def without_its_files(file: Path) -> None:
    """Makes a backup what earlier versions have made of the same host."""
    found = {name: data for name, data in members(file).items() if not name.startswith("fleet/")}
    manifest = json.loads(found["manifest.json"])
    manifest["members"] = {name: each for name, each in manifest["members"].items() if name in found}
    found["manifest.json"] = json.dumps(manifest | {"format": 1}).encode()
    write_members(file, found)


def test_a_backup_of_before_such_files(fra: CommandLine, saved: Path) -> None:
    """Restored on the same member its files stay; elsewhere what is missing is said, and the host can be single."""
    without_its_files(saved)
    before = identity(fra)
    assert "note:" not in fra.do("restore", str(saved)).err
    assert identity(fra) == before
    be_another(fra, FLEET)
    assert "is of another host of a fleet" in refused(fra, "restore", str(saved))
    lose_all(fra)
    assert f"does not have its keys: put {fra.state.path / 'fleet'} back" in fra.do("restore", str(saved)).err
    fra.do("fleet", "leave")
    assert one(fra, TRIGGERS) == 0


def test_a_backup_of_a_host_in_no_fleet(used: CommandLine, file: Path) -> None:
    """Restored on a host in one it is refused; its files are as ever, so that earlier versions restore it."""
    assert json.loads(members(file)["manifest.json"])["format"] == 1
    enter(used)
    assert "is of a host in no fleet" in refused(used, "restore", str(file))


def test_no_backup_is_made_in_the_middle_of_leaving(fra: CommandLine, saved: Path) -> None:
    """The files and the store would be of two moments; the earlier backup stays."""
    before = saved.read_bytes()
    fra.write(fleet_state.leave)
    assert "into a fleet or out of it just now" in refused(fra, "backup", str(saved))
    assert saved.read_bytes() == before
