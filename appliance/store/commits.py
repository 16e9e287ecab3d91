"""Tells in microseconds whether anything was committed to the store, by this process or another.

For what looks several times a second at rows that seldom change: a statement of aiosqlite goes to another thread and
back, which costs more than the statement.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Commits:
    """Counts the commits of others than its own connection, which writes nothing. Of one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None  # opened by the first question: a single exit asks none
        self._closed = False

    def number(self) -> int | None:
        """Returns a number that is another one after each commit; None: it is not known now.

        In WAL it is read from shared memory: https://www.sqlite.org/pragma.html#pragma_data_version
        """
        if self._closed:
            return None
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
            rows = self._connection.execute("PRAGMA data_version").fetchall()
        except sqlite3.Error:
            return None
        return int(rows[0][0])

    def close(self) -> None:
        self._closed = True
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class StoreNews:
    """Remembers for one reader up to which commit it has read.

    if news.is_any():
        …
        news.taken()  # not where reading has failed, or what was read is still to be done
    """

    def __init__(self, commits: Commits) -> None:
        self._commits = commits
        self._taken: int | None = None
        self._asked: int | None = None

    def is_any(self) -> bool:
        """Tells whether there may be what was not read yet."""
        self._asked = self._commits.number()
        return self._asked is None or self._asked != self._taken

    def taken(self) -> None:
        """Notes that all is read that was committed before `is_any` was asked."""
        self._taken = self._asked
