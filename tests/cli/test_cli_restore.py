"""wg-appliance restore: what was saved comes back, and what was there is not lost."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from appliance.ops.backup import create
from appliance.store.migration import APPLICATION_ID, migrations
from appliance.store.queries import fleet_reports
from tests.support.cli.backups import content, members, refused, rows
from tests.support.cli.command_line import CommandLine
from tests.support.small_disk import full, small_disk

if TYPE_CHECKING:
    from pathlib import Path

NEWEST = migrations()[-1][0]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


def test_onto_an_empty_host(used: CommandLine, file: Path) -> None:
    """Sessions, accounts, key and configuration are as they were, for the owner alone, and the store opens."""
    before, key, config = rows(used.state.store), used.state.key.read_bytes(), used.config.read_bytes()
    shutil.rmtree(used.state.path)
    used.config.unlink()
    done = used.do("restore", str(file))
    assert done.err.splitlines()[1:] == [f"restored {used.config}"]
    assert rows(used.state.store) == before
    assert (used.state.key.read_bytes(), used.config.read_bytes()) == (key, config)
    modes = {path.stat().st_mode & 0o777 for path in (used.state.store, used.state.key)}
    assert (modes, used.state.path.stat().st_mode & 0o777) == ({0o600}, 0o700)
    assert {path.name for path in used.state.path.iterdir()} == {"store.sqlite", "server.key", "serve.lock"}
    assert [s["state"] for s in used.json("session", "list")["sessions"]] == ["closing", "live"]


def test_a_store_of_a_fleet_is_marked(used: CommandLine) -> None:
    """An exit that reports to a hub knows that it was restored; one by itself has nothing noted."""
    marks = "SELECT restored FROM fleet_reporting"
    for in_fleet in (False, True):
        if in_fleet:
            used.write(fleet_reports.begin_reporting)
        file = used.config.with_name(f"{in_fleet}.tar")
        used.do("backup", str(file))
        used.do("restore", str(file))
        with closing(sqlite3.connect(used.state.store)) as db:
            assert db.execute(marks).fetchall() == ([(1,)] if in_fleet else [])
        assert not [path for path in used.state.path.iterdir() if path.name.endswith(("-wal", "-shm"))]


def test_what_was_there_is_kept(used: CommandLine, file: Path) -> None:
    """Old store, its log and the old key are in a folder that is named, fit for use; a second restore adds one."""
    saved = rows(used.state.store)
    used.do("account", "create", "later")
    with closing(sqlite3.connect(used.state.store, isolation_level=None)) as crashed:
        crashed.execute("UPDATE node SET drained = 1")
        left = content(used.state.path)
    for name, data in left.items():
        (used.state.path / name).write_bytes(data)
    before = rows_of_copy(used.state.path)
    done = used.do("restore", str(file))
    (kept,) = used.state.path.glob("before-restore-*")
    assert f"what was there before is in {kept}" in done.err
    assert str(used.config) not in done.err  # it is the same
    assert content(kept) == {name: data for name, data in left.items() if not name.endswith("-shm")}
    assert rows(kept / "store.sqlite") == before
    assert rows(used.state.store) == saved
    used.do("restore", str(file))
    assert len([*used.state.path.glob("before-restore-*")]) == 2


def rows_of_copy(folder: Path) -> list[str]:
    """Not of the store itself: looking would clear its log away."""
    copy = shutil.copytree(folder, folder.parent / "copy")
    return rows(copy / "store.sqlite")


def test_a_differing_configuration_is_kept(used: CommandLine, file: Path) -> None:
    """The backup's takes its place, with the mode of the one that was there; the old one stays beside it."""
    saved = used.config.read_bytes()
    used.config.write_bytes(saved + b"[metrics]\nlisten = ''\n")
    used.config.chmod(0o640)
    changed = used.config.read_bytes()
    done = used.do("restore", str(file))
    (kept,) = used.config.parent.glob("config.toml.before-restore-*")
    assert f"restored {used.config}; the one before is {kept}" in done.err
    assert (used.config.read_bytes(), kept.read_bytes()) == (saved, changed)
    assert used.config.stat().st_mode & 0o777 == 0o640


def test_made_without_a_configuration(used: CommandLine, tmp_path: Path) -> None:
    """Where all was at its defaults there is none in it, and the one that is here stays."""
    create.write_backup(used.state, tmp_path / "none", tmp_path / "b")
    assert list(members(tmp_path / "b")) == ["manifest.json", "server.key", "store.sqlite"]
    before = used.config.read_bytes()
    used.do("restore", str(tmp_path / "b"))
    assert used.config.read_bytes() == before


def test_an_older_schema_is_restored_as_it_is(used: CommandLine, file: Path, tmp_path: Path) -> None:
    """Restored as it is, so that the version which made it can go on with it; whatever opens it first migrates it."""
    old = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(old)) as db, db:
        db.executescript(migrations()[0][1])
        db.executescript(f"PRAGMA user_version = 1; PRAGMA application_id = {APPLICATION_ID};")
    used.state.store.write_bytes(old.read_bytes())
    used.do("backup", str(file))
    used.do("restore", str(file))
    assert rows(used.state.store) == rows(old)
    with closing(sqlite3.connect(used.state.store)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
    used.do("account", "list")
    with closing(sqlite3.connect(used.state.store)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (NEWEST,)


def test_what_is_of_another_host_is_said(used: CommandLine, tmp_path: Path) -> None:
    """A fixed public address that this host lacks, and files that are not here: it is restored all the same."""
    used.config.write_text(
        used.config.read_text()
        + 'public_ip = "192.0.2.77"\n[api]\ntls_cert = "/nonexistent/cert"\ntls_key = "/nonexistent/key"\n'
    )
    create.write_backup(used.state, used.config, tmp_path / "b")
    notes = [line for line in used.do("restore", str(tmp_path / "b")).err.splitlines() if line.startswith("note: ")]
    assert "node.public_ip is 192.0.2.77, which is no address of this host" in notes[0]
    assert "/nonexistent/cert" in notes[1]


@pytest.mark.parametrize("whose", ["the backup's", "the present"])
def test_a_restore_is_refused_while_serving(used: CommandLine, file: Path, tmp_path: Path, whose: str) -> None:
    """Whether the server runs on the state that the backup's configuration names, or that the present one does."""
    served = used.state
    if whose == "the present":
        (tmp_path / "other").mkdir()
        other = CommandLine(tmp_path / "other")
        other.do("init")
        used.config.write_bytes(other.config.read_bytes())
        served = other.state
    before = content(tmp_path)
    with served.serving():
        assert f"already serving {served.path}; stop it first: systemctl stop wg-appliance" in refused(
            used, "restore", str(file)
        )
    assert content(tmp_path) == before


@needs_root
def test_a_full_disk_while_unpacking(used: CommandLine, file: Path, tmp_path: Path) -> None:
    """One line; what was there is there, and nothing else."""
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        shutil.copytree(used.state.path, disk / "state")
        used.config.write_text(f"[node]\nstate_dir = {json.dumps(str(disk / 'state'))}\n")
        create.write_backup(used.state, used.config, file)
        before = content(disk)
        with full(disk, 1 << 14):
            assert "No space left" in refused(used, "restore", str(file))
        assert content(disk) == before


def test_after_a_killed_restore_nothing_works_until_it_is_run_again(used: CommandLine, file: Path) -> None:
    """After a restore that was killed, nothing works on what may be mixed, until it was run again."""
    used.state.unfinished_restore.touch()
    for command in (("account", "list"), ("serve",)):
        done = used(*command)
        assert (done.status, "was cut short; run it again: wg-appliance restore FILE" in done.err) == (1, True)
    used.do("restore", str(file))
    used.do("account", "list")
