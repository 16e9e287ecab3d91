"""What the service's user puts in place of the store's files neither holds root up nor keeps it from a restore."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.cli.command_line import CommandLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEEP = 1200  # folders within each other: more than Python's recursion limit


@pytest.fixture(autouse=True)
def emptied(tmp_path: Path) -> Iterator[None]:
    """pytest itself cannot remove what is nested that deep."""
    yield
    subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True, timeout=60)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()
    (path / "something").touch()


def dead_link(path: Path) -> None:
    path.symlink_to("/nonexistent/file")


def deep_folder(path: Path) -> None:
    path.mkdir()
    inner = os.open(path, os.O_DIRECTORY)
    for _ in range(DEEP):
        os.mkdir("d", dir_fd=inner)
        outer, inner = inner, os.open("d", os.O_DIRECTORY, dir_fd=inner)
        os.close(outer)
    os.close(inner)


def replace(path: Path, put: Callable[[Path], None]) -> None:
    path.unlink(missing_ok=True)
    put(path)


@pytest.mark.black_box
@pytest.mark.parametrize("name", ["store.sqlite", "store.sqlite-wal", "store.sqlite-journal"])
@pytest.mark.parametrize("arguments", [("token", "list"), ("node", "drain"), ("backup", "x.tar")], ids=" ".join)
def test_a_fifo_holds_no_command_up(tmp_path: Path, name: str, arguments: tuple[str, ...]) -> None:
    """The command ends at once, with one line that names the file."""
    wga = CommandLine(tmp_path)
    wga.do("init")
    replace(wga.state.path / name, fifo)
    done = wga.process(*(str(tmp_path / word) if word.endswith(".tar") else word for word in arguments))
    assert (done.status, len(done.err.splitlines())) == (1, 1), done
    assert f"{name} is not a regular file; bring a backup back" in done.err


@pytest.mark.parametrize("put", [fifo, folder, dead_link])
@pytest.mark.parametrize(
    "name",
    [
        "store.sqlite",
        "store.sqlite-wal",
        "store.sqlite-shm",
        "store.sqlite-journal",
        "server.key",
        "restore.unfinished",
    ],
)
def test_a_restore_moves_it_aside(used: CommandLine, file: Path, name: str, put: Callable[[Path], None]) -> None:
    """The restored store opens; what stood in the way is kept beside the old files."""
    key = used.state.key.read_bytes()
    replace(used.state.path / name, put)
    used.do("restore", str(file))
    assert used.json("account", "list")["accounts"]
    assert used.state.key.read_bytes() == key
    kept = {path.name for each in used.state.path.glob("before-restore-*") for path in each.iterdir()}
    assert name in kept or name == "restore.unfinished"


@pytest.mark.parametrize("put", [fifo, folder, dead_link, deep_folder])
def test_the_place_of_unpacking_is_cleared(used: CommandLine, file: Path, put: Callable[[Path], None]) -> None:
    """Whatever is there, the restore ends, and leaves nothing there."""
    place = used.state.path / "restore.unpacking"
    put(place)
    used.do("restore", str(file))
    assert not os.path.lexists(place)


def test_a_journal_is_not_played_into_the_restored_store(used: CommandLine, file: Path) -> None:
    """A journal of the store before goes aside with it."""
    saved = used.json("account", "list")
    with sqlite3.connect(used.state.store, isolation_level=None) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE accounts SET disabled = 1 - disabled")
        db.execute("PRAGMA cache_spill = 1")
        journal = used.state.store.with_name("store.sqlite-journal").read_bytes()
    db.close()
    used.state.store.with_name("store.sqlite-journal").write_bytes(journal)
    used.do("restore", str(file))
    assert used.json("account", "list") == saved
    (kept,) = used.state.path.glob("before-restore-*")
    assert (kept / "store.sqlite-journal").read_bytes() == journal


@pytest.mark.black_box
def test_a_backup_replaces_no_link(tmp_path: Path) -> None:
    """/dev/stdout is one, behind which a shell has made an empty file."""
    wga = CommandLine(tmp_path)
    wga.do("init")
    (tmp_path / "empty").touch()
    link = tmp_path / "stdout"
    link.symlink_to("empty")
    done = wga.process("backup", str(link))
    assert (done.status, link.is_symlink(), (tmp_path / "empty").stat().st_size) == (1, True, 0), done
    assert "is a link, which the backup would replace" in done.err


def test_folders_named_like_backups_are_passed_over(used: CommandLine, tmp_path: Path) -> None:
    """The oldest backups are removed all the same."""
    place = tmp_path / "backups"
    (place / "wg-appliance-20000101T000000Z.tar").mkdir(parents=True)
    (place / "wg-appliance-20000102T000000Z.tar").touch()
    used.do("backup", "--keep", "1", str(place))
    left = sorted(path.name for path in place.iterdir())
    assert left[0] == "wg-appliance-20000101T000000Z.tar"
    assert len(left) == 2
