"""Is the store's file whole? Asked at start, before anything is written to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from appliance.errors import StoreError
from appliance.store.connection import damaged, explain

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
        with reading(path) as db:
            # Like integrity_check, but for comparing indices with their tables. https://www.sqlite.org/pragma.html
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise explain(error, path) from error
    if found != "ok":
        raise StoreError(damaged(path, found))


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that leaves the file as it is."""
    # Closing a connection that could write would copy the log of the last transactions into a damaged file. Reading
    # without a log leaves no files behind if told that nobody else writes. https://www.sqlite.org/uri.html
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as db:
        yield db
