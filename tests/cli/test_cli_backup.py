"""wg-appliance backup: one file, whole or not there."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from appliance.ops.backup import create
from appliance.store.free_pages import INCREMENTAL
from appliance.store.migration import migrations
from tests.support.cli.backups import content, members, refused, rows
from tests.support.cli.command_line import PROJECT
from tests.support.small_disk import full, small_disk

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cli.command_line import CommandLine

NEWEST = migrations()[-1][0]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


def test_a_backup_is_one_private_file(used: CommandLine, file: Path) -> None:
    """A plain tar of four members, for its owner alone; nothing else is left beside it or in the state directory."""
    found = members(file)
    assert list(found) == ["manifest.json", "config.toml", "server.key", "store.sqlite"]
    assert found["config.toml"] == used.config.read_bytes()
    assert found["server.key"] == used.state.key.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in file.parent.iterdir()} == {"backup.tar", "config.toml", "state"}
    assert {path.name for path in used.state.path.iterdir()} == {"store.sqlite", "server.key"}


def test_what_a_crash_left_in_the_log_is_in_it(used: CommandLine, tmp_path: Path) -> None:
    """The last transactions count, also while they are in the -wal alone."""
    with closing(sqlite3.connect(used.state.store, isolation_level=None)) as running:
        running.execute("UPDATE node SET drained = 1")
        assert used.state.store.with_name("store.sqlite-wal").stat().st_size
        used.do("backup", str(tmp_path / "b"))
    (tmp_path / "copy").write_bytes(members(tmp_path / "b")["store.sqlite"])
    assert rows(tmp_path / "copy") == rows(used.state.store)


def test_a_backup_of_a_store_that_can_shrink_can(used: CommandLine, file: Path, tmp_path: Path) -> None:
    """The copy of the store gives room back like the store itself; so does what is restored from it."""
    (tmp_path / "copy").write_bytes(members(file)["store.sqlite"])
    used.do("restore", str(file))
    for store in (tmp_path / "copy", used.state.store):
        with closing(sqlite3.connect(store)) as db:
            assert db.execute("PRAGMA auto_vacuum").fetchone() == (INCREMENTAL,)


def test_an_earlier_backup_is_replaced(used: CommandLine, file: Path) -> None:
    """By one of now; what an earlier one that was killed left is cleared away."""
    before = members(file)["store.sqlite"]
    workshop = file.parent / create.WORKSHOP
    workshop.mkdir(mode=0o700)
    (workshop / "backup").write_bytes(b"half")
    used.do("account", "create", "bob")
    used.do("backup", str(file))
    assert members(file)["store.sqlite"] != before
    assert not workshop.exists()


def test_a_folder_gets_dated_names(used: CommandLine, tmp_path: Path) -> None:
    """--keep leaves the newest, and files with other names; without a folder it is a usage error."""
    folder = tmp_path / "backups"
    folder.mkdir()
    old = [folder / f"wg-appliance-2020010{day}T000000Z.tar" for day in (1, 2, 3)]
    for path in (*old, folder / "wg-appliance-mine.tar"):
        path.touch()
    done = used.do("backup", str(folder), "--keep", "2")
    assert done.err.splitlines()[1:] == [f"removed {path}" for path in old[:2]]
    kept = sorted(path.name for path in folder.iterdir())
    assert len(kept) == 3
    assert old[2].name in kept
    assert "wg-appliance-mine.tar" in kept
    assert used("backup", str(tmp_path / "file"), "--keep", "2").status == 2


def test_the_last_backup_is_kept_whatever_the_clock_says(used: CommandLine, tmp_path: Path) -> None:
    """Where the others are dated later, as the clock was ahead when they were made, the last one stays all the same."""
    folder = tmp_path / "backups"
    folder.mkdir()
    later = [folder / f"wg-appliance-2999010{day}T000000Z.tar" for day in (1, 2, 3)]
    for path in later:
        path.touch()
    done = used.do("backup", str(folder), "--keep", "2")
    assert done.err.splitlines()[1:] == [f"removed {path}" for path in later[:2]]
    (made,) = set(folder.iterdir()) - {later[2]}
    assert str(made) in done.err.splitlines()[0]


def test_the_units_command_makes_a_backup(used: CommandLine, tmp_path: Path) -> None:
    """What the systemd unit executes makes a backup; only its folder is another one here."""
    unit = (PROJECT / "systemd" / "wg-appliance-backup.service").read_text(encoding="utf-8")
    (command,) = re.findall(r"^ExecStart=/usr/local/bin/wg-appliance (.*)$", unit, re.MULTILINE)
    (keep,) = re.findall(r"^Environment=KEEP=(\d+) FOLDER=", unit, re.MULTILINE)
    used.do(*command.replace("${KEEP}", keep).replace("${FOLDER}", str(tmp_path)).split())
    assert [*tmp_path.glob("wg-appliance-*.tar")]


def test_a_damaged_store_replaces_no_backup(used: CommandLine, file: Path) -> None:
    """The earlier backup is what is needed now."""
    before = file.read_bytes()
    store = bytearray(used.state.store.read_bytes())
    store[4096 * 3 : 4096 * 6] = b"\xa5" * 4096 * 3
    used.state.store.write_bytes(store)
    assert f"the store {used.state.store} is damaged: " in refused(used, "backup", str(file))
    assert file.read_bytes() == before
    assert not (file.parent / create.WORKSHOP).exists()


@pytest.mark.parametrize("name", ["config.toml", "state/store.sqlite", "state/server.key", "other"])
def test_no_backup_is_no_target(used: CommandLine, tmp_path: Path, name: str) -> None:
    """A file that is there and no backup was named by mistake."""
    (tmp_path / "other").write_bytes(b"mine")
    before = content(tmp_path)
    assert f"{tmp_path / name} exists and is no backup" in refused(used, "backup", str(tmp_path / name))
    assert content(tmp_path) == before


def test_a_missing_folder_is_named(used: CommandLine, tmp_path: Path) -> None:
    """A folder that is not there is named, with what was to be written."""
    assert f"cannot write the backup {tmp_path / 'none' / 'b'}: " in refused(
        used, "backup", str(tmp_path / "none" / "b")
    )


def test_no_store_makes_no_backup(bare: CommandLine, tmp_path: Path) -> None:
    """Without a store: no file is made, and no store."""
    assert f"no store at {bare.state.store}" in refused(bare, "backup", str(tmp_path / "b"))
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_a_second_backup_is_told_to_wait(used: CommandLine, tmp_path: Path) -> None:
    """In one folder the second is told to wait."""
    with create.workshop(tmp_path):
        assert "another backup is being written" in refused(used, "backup", str(tmp_path / "b"))
    used.do("backup", str(tmp_path / "b"))


@needs_root
def test_the_folder_for_work_is_ours(used: CommandLine, tmp_path: Path) -> None:
    """Another user who made it could swap what is in it: refused."""
    (tmp_path / create.WORKSHOP).mkdir()
    os.chown(tmp_path / create.WORKSHOP, 65534, 65534)
    assert "belongs to another user" in refused(used, "backup", str(tmp_path / "b"))
    assert not (tmp_path / "b").exists()


@needs_root
@pytest.mark.parametrize("copies", [0, 0.5, 1.5], ids=["at once", "in the copy", "in the file"])
def test_a_full_disk_in_the_middle(used: CommandLine, tmp_path: Path, copies: float) -> None:
    """One line; no half file is left, and the earlier backup is as it was."""
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        used.do("backup", str(disk / "b"))
        before = content(disk)
        with full(disk, int(copies * used.state.store.stat().st_size)):
            assert "full" in (line := refused(used, "backup", str(disk / "b"))) or "No space left" in line
        assert content(disk) == before
        used.do("backup", str(disk / "b"))
