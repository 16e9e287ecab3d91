"""Checks the integrity of the store's file: at start, before anything is written to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from appliance.domain.errors import StoreError
from appliance.store import store_files
from appliance.store.database import damaged, explain, require_regular
from appliance.store.migration import APPLICATION_ID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def check(path: Path) -> None:
    """Reads the whole file once, without changing it. Raises StoreError, naming the file, if it is damaged.

    Blocks, about a second for each gigabyte. A missing file passes.
    """
    if not path.exists():
        return
    try:
        # Like integrity_check, but does not compare indices with their tables. https://www.sqlite.org/pragma.html
        verdict = _ask(path, "PRAGMA quick_check(1)")
    except sqlite3.Error as error:
        raise explain(error, path) from error
    if verdict != "ok":
        raise StoreError(damaged(path, verdict))


def flaw(path: Path) -> str | None:
    """Returns what is wrong with a copy of a store, its indices included; None if it is intact."""
    try:
        verdict = _ask(path, "PRAGMA integrity_check(1)")
        if verdict == "ok" and _ask(path, "PRAGMA application_id") != str(APPLICATION_ID):
            verdict = "it is a database of another program"
    except sqlite3.Error as error:
        return str(error)
    return None if verdict == "ok" else verdict


def schema(path: Path) -> int:
    """Returns the schema version of a store. Raises StoreError, naming the file, if it cannot be read."""
    with naming(path):
        return int(_ask(path, "PRAGMA user_version"))


def has_schema(path: Path, version: int) -> bool:
    """Tells whether the store has this schema version; False if it cannot be read."""
    try:
        return schema(path) == version
    except StoreError:
        return False


def _ask(path: Path, pragma: str) -> str:
    with _opened(path) as db:
        (verdict,) = db.execute(pragma).fetchone()
    return str(verdict)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Raises StoreError, naming the store's file, for SQLite's errors."""
    try:
        yield
    except sqlite3.Error as error:
        raise explain(error, path) from error


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens a connection that leaves the file unchanged. Raises StoreError, naming the file, if it cannot be read."""
    with naming(path), _opened(path) as db:
        yield db


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens a connection to a store that no server has open, and commits at the end. Raises StoreError, naming it."""
    require_regular(path)
    with naming(path), closing(sqlite3.connect(path)) as db, db:
        yield db


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    require_regular(path)
    # Closing a writable connection would checkpoint the WAL into a damaged file. Without a WAL, `immutable` (no other
    # process writes) avoids leaving files behind. https://www.sqlite.org/uri.html
    wal, *_ = store_files.sides(path)
    mode = "mode=ro" if wal.exists() else "immutable=1"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as db:
        yield db
