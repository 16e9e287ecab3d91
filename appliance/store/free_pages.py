"""Gives the pages that deleted rows leave free back to the disk: SQLite's incremental vacuum.

https://www.sqlite.org/pragma.html#pragma_auto_vacuum
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.store.database import first

if TYPE_CHECKING:
    import aiosqlite

log = logging.getLogger(__name__)

INCREMENTAL = 2  # of PRAGMA auto_vacuum
LARGEST = 512 * 2**20  # bytes: ten seconds on a busy machine, of the thirty in which an upgrade has to be ready


def prepare(path: Path) -> None:
    """Rewrites a store of an older version once, so that its file can shrink. Blocks: for the largest, ten seconds.

    Only logs why it cannot: the store serves as it is, and a later start tries again.
    """
    began = time.monotonic()
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            if _ask(db, "auto_vacuum") == INCREMENTAL:
                return
            obstacle = _obstacle(path, _ask(db, "page_count") * _ask(db, "page_size"))
            if obstacle is None:
                db.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
                db.execute("VACUUM")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.Error as error:
        obstacle = f"{error}; the next start tries again"
    if obstacle is None:
        log.info("the store %s can shrink from now on; rewritten in %.1f s", path, time.monotonic() - began)
    else:
        log.warning("the store %s keeps the room of what is deleted from it, for what comes: %s", path, obstacle)


def _obstacle(path: Path, size: int) -> str | None:
    """Returns why a store of this size is not rewritten now."""
    if size > LARGEST:
        command = f"sqlite3 {path} 'PRAGMA auto_vacuum = {INCREMENTAL}; VACUUM'"
        return f"rewriting {size >> 20} MiB takes long; stop the service and run, as the file's owner: {command}"
    # VACUUM writes a copy to a temporary file, and that to the WAL. https://www.sqlite.org/lang_vacuum.html
    copies = [_temporary(), path.parent]
    for folder in copies:
        taken = size * sum(folder.stat().st_dev == other.stat().st_dev for other in copies)
        disk = os.statvfs(folder)
        free = disk.f_bavail * disk.f_frsize
        if free < taken:
            return (
                f"rewriting it takes {-(-taken >> 20)} MiB in {folder}, where {free >> 20} are free; make room, restart"
            )
    return None


def _temporary() -> Path:
    """Returns the folder in which SQLite makes temporary files. https://www.sqlite.org/tempfiles.html"""
    named = (os.environ.get(name, "") for name in ("SQLITE_TMPDIR", "TMPDIR"))
    usable = (Path(name) for name in (*named, "/var/tmp", "/usr/tmp", "/tmp") if name)  # noqa: S108 (SQLite's)
    return next((folder for folder in usable if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)), Path())


def _ask(db: sqlite3.Connection, pragma: str) -> int:
    return int(db.execute(f"PRAGMA {pragma}").fetchone()[0])


async def count(db: aiosqlite.Connection) -> int:
    """Returns how many pages are free and can be given back; 0 where the file cannot shrink."""
    if first(await db.execute_fetchall("PRAGMA auto_vacuum"))[0] != INCREMENTAL:
        return 0
    return int(first(await db.execute_fetchall("PRAGMA freelist_count"))[0])
