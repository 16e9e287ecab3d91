"""Writes a backup: a consistent snapshot of the store, the server key, who the host is in a fleet, and the
configuration, in one file."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import sqlite3
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

from appliance import __version__
from appliance.config.state_file import sync_folder
from appliance.domain.errors import BackupError, HostError, StoreError
from appliance.network.wireguard.keys import encode
from appliance.ops.backup import fleet_files
from appliance.ops.backup.archive import (
    CONFIG,
    FLEET,
    FORMAT,
    KEY,
    STORE,
    WITHOUT_FLEET,
    Manifest,
    digest,
    is_backup,
    write,
)
from appliance.store import integrity
from appliance.store.database import PATIENCE_S, damaged, explain, require_regular
from appliance.store.file_owner import acting_as_owner, have_one_owner
from appliance.store.store_files import is_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from appliance.store.state_dir import StateDir

WORKSHOP = ".wg-appliance-backup.partial"  # one per folder, so that the next backup removes what a killed one left
DATED = "wg-appliance-%Y%m%dT%H%M%SZ.tar"
ANY_DATED = "wg-appliance-????????T??????Z.tar"


def write_backup(state: StateDir, config_file: Path, target: Path) -> None:
    """Saves state and configuration to `target`, whether or not a server runs.

    An earlier backup at `target` is replaced once the new one is complete, checked and on disk. There must be free
    space for two more backups next to it.
    Raises StoreError if the store is missing or damaged. Raises BackupError if `target` exists and is not a backup.
    Raises HostError if the host refuses a step.
    """
    with snapshot(state.store) as source, _faults("cannot write the backup", target):
        # A link there may lead to a key that is not theirs.
        with acting_as_owner(state.path), integrity.naming(state.store):
            key = state.read_key()
            of_fleet = fleet_files.to_save(state, source)
        contents: dict[str, BinaryIO] = {KEY: io.BytesIO(f"{encode(key)}\n".encode())}
        contents |= {member: io.BytesIO(of_fleet[name]) for member, name in FLEET.items() if name in of_fleet}
        with suppress(FileNotFoundError):
            contents = {CONFIG: io.BytesIO(config_file.read_bytes())} | contents
        # In a folder of the same user, as the timer's is, that user could put links in the way meanwhile.
        theirs = have_one_owner(state.path, target.parent)
        with acting_as_owner(target.parent) if theirs else nullcontext(), workshop(target.parent) as folder:
            _refuse_others(target)
            copy, new = folder / STORE, folder / "backup"
            _copy(source, state.store, copy)
            with copy.open("rb") as contents[STORE]:
                _write(new, integrity.schema(copy), contents)
            new.replace(target)
            sync_folder(target.parent)


def dated(folder: Path) -> Path:
    """Returns the path of a backup made now, in a folder of dated backups."""
    return folder / datetime.now(UTC).strftime(DATED)


def drop_oldest(state: StateDir, folder: Path, keep: int, made: Path) -> list[Path]:
    """Removes all but `keep` backups named by `dated`: `made`, and the newest others. Returns those removed.

    A wall clock that was set back names the last one as older than the others.
    """
    # A folder of the state's owner may be a link to another's by now.
    with acting_as_owner(folder) if have_one_owner(state.path, folder) else nullcontext():
        others = sorted(path for path in folder.glob(ANY_DATED) if path.name != made.name and is_regular(path))
        gone = others[: max(0, len(others) - keep + 1)]
        for path in gone:
            path.unlink()
    return gone


@contextmanager
def snapshot(store: Path) -> Iterator[sqlite3.Connection]:
    """Yields a connection that sees the store at one moment. Its -wal and -shm files are created as the owner.

    Raises StoreError if the store is missing or damaged.
    """
    with ExitStack() as stack:
        try:
            with acting_as_owner(store.parent):
                store.stat()
                require_regular(store)
                # "rw": does not create a missing store. https://www.sqlite.org/uri.html
                uri = f"{store.absolute().as_uri()}?mode=rw"
                source = sqlite3.connect(uri, uri=True, timeout=PATIENCE_S, isolation_level=None)
                stack.callback(_close, source, store.parent)
                source.execute("BEGIN")
                source.execute("SELECT 1 FROM sqlite_schema").fetchone()
        except FileNotFoundError as error:
            raise StoreError(f"no store at {store}: nothing to save; name the right configuration") from error
        except sqlite3.Error as error:
            raise explain(error, store) from error
        yield source


def _close(source: sqlite3.Connection, folder: Path) -> None:
    """Closes the store as its owner: SQLite removes files beside it by their names, which may lead elsewhere by now."""
    with acting_as_owner(folder):
        source.close()


def _copy(source: sqlite3.Connection, store: Path, copy: Path) -> None:
    try:
        with closing(sqlite3.connect(copy)) as into:
            # The copy need not survive a crash before it is part of a backup.
            into.execute("PRAGMA journal_mode = OFF")
            into.execute("PRAGMA synchronous = OFF")
            source.backup(into)
    except sqlite3.OperationalError as error:
        raise HostError(f"cannot copy the store {store} to {copy.parent}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise explain(error, store) from error
    found = integrity.flaw(copy)
    if found is not None:
        raise StoreError(damaged(store, found))


def _write(new: Path, schema: int, contents: dict[str, BinaryIO]) -> None:
    members = {name: digest(content) for name, content in contents.items()}
    made_for = FORMAT if FLEET.keys() & members.keys() else WITHOUT_FLEET
    made_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        write(file, Manifest(made_for, __version__, schema, made_at, members), contents)
        file.flush()
        os.fsync(file.fileno())


def _refuse_others(target: Path) -> None:
    if target.is_symlink():  # /dev/stdout is one
        raise BackupError(f"{target} is a link, which the backup would replace; name the file that it leads to")
    if not target.exists() or (target.is_file() and (target.stat().st_size == 0 or is_backup(target))):
        return
    raise BackupError(f"{target} exists and is no backup of wg-appliance; name another file")


@contextmanager
def workshop(parent: Path) -> Iterator[Path]:
    """Makes a private folder on the target's file system, safe from other users who may write to `parent`."""
    path = parent / WORKSHOP
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise HostError(f"{path} belongs to another user; remove it, or name another folder")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in path.iterdir():
            left.unlink()
        try:
            yield path
        finally:
            shutil.rmtree(path)
    except BlockingIOError as error:
        raise HostError(f"another backup is being written in {parent}; try again when it is done") from error
    finally:
        os.close(descriptor)


@contextmanager
def _faults(what: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostError(f"{what} {path}: {error.strerror or error}") from error
