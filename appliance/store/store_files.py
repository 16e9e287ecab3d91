"""Names the files of a store, and what stands in their place: SQLite would wait for a FIFO's other end for good."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# What SQLite keeps beside a database. https://www.sqlite.org/tempfiles.html
WAL, SHM, JOURNAL = "-wal", "-shm", "-journal"


def sides(store: Path) -> list[Path]:
    """Returns where SQLite keeps what belongs to the store."""
    return [store.with_name(store.name + side) for side in (WAL, SHM, JOURNAL)]


def irregular(store: Path) -> Path | None:
    """Returns the first of the store's files that is there and no regular file, nor a link to one."""
    for file in (store, *sides(store)):
        try:
            mode = file.stat().st_mode
        except OSError:
            continue  # SQLite says what is wrong with it
        if not stat.S_ISREG(mode):
            return file
    return None


def is_regular(path: Path) -> bool:
    """Tells whether there is a regular file, not a link to one. Raises OSError if that cannot be seen."""
    return os.path.lexists(path) and stat.S_ISREG(path.lstat().st_mode)
