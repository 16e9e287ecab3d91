"""Is the store's file whole? Asked at start, before anything is written to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from appliance.domain.errors import StoreError
from appliance.store.database import damaged, explain
from appliance.store.migration import APPLICATION_ID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def check(path: Path) -> None:
    """Read all of it once. Raises StoreError naming the file, which is as it was: it is opened for reading only.

    Blocking, about a second for each gigabyte. A missing file is none that is damaged.
    """
    if not path.exists():
        return
    try:
        # Like integrity_check, but for comparing indices with their tables. https://www.sqlite.org/pragma.html
        found = _ask(path, "PRAGMA quick_check(1)")
    except sqlite3.Error as error:
        raise explain(error, path) from error
    if found != "ok":
        raise StoreError(damaged(path, found))


def flaw(path: Path) -> str | None:
    """What is wrong with a copy of a store, its indices included; None: nothing."""
    try:
        found = _ask(path, "PRAGMA integrity_check(1)")
        if found == "ok" and _ask(path, "PRAGMA application_id") != str(APPLICATION_ID):
            found = "it is a database of another program"
    except sqlite3.Error as error:
        return str(error)
    return None if found == "ok" else found


def schema(path: Path) -> int:
    """The schema's version in a copy of a store."""
    return int(_ask(path, "PRAGMA user_version"))


def _ask(path: Path, pragma: str) -> str:
    with reading(path) as db:
        (found,) = db.execute(pragma).fetchone()
    return str(found)


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that leaves the file as it is."""
    # Closing a connection that could write would copy the log of the last transactions into a damaged file. Reading
    # without a log leaves no files behind if told that nobody else writes. https://www.sqlite.org/uri.html
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as db:
        yield db
