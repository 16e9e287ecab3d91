"""Opening the store: one writer, one reader, and what each of them is set to."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Self

import aiosqlite

from appliance.errors import StoreError, StoreUnavailable
from appliance.store import migration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

BUSY_TIMEOUT_MS = 3000
WAL_BYTES = 16 * 1024 * 1024  # what it is cut back to, once whoever read for long lets it be

# WAL lets the reader and admin commands read while the writer writes. FULL makes a commit survive a power
# cut: a client that was told 201 finds its session afterwards. https://www.sqlite.org/pragma.html
PRAGMAS = (
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA journal_size_limit = {WAL_BYTES}",
)


class Store:
    """The open store. Every method raises `StoreUnavailable` while SQLite cannot serve (locked, full, damaged)."""

    def __init__(self, path: Path, writer: aiosqlite.Connection, reader: aiosqlite.Connection) -> None:
        self.path = path
        self._writer = writer
        self._reader = reader
        self._writing = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open the file at `path`, made and brought up to this version's schema where needed.

        Raises StoreError, naming the file, when it is corrupt, newer than this program or not readable.
        """
        opened: list[aiosqlite.Connection] = []
        try:
            for _ in range(2):
                opened.append(await _connect(path))
                if len(opened) == 1:
                    await migration.migrate(opened[0], path)
        except BaseException as error:
            for connection in opened:
                await connection.close()
            if isinstance(error, sqlite3.Error):
                raise explain(error, path) from error
            raise
        writer, reader = opened
        await reader.execute("PRAGMA query_only = ON")
        return cls(path, writer, reader)

    async def close(self) -> None:
        async with self._writing:
            await self._reader.close()
            await self._writer.close()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[aiosqlite.Connection]:
        """One transaction: committed when the block ends, undone when it raises. Writers take turns."""
        async with self._writing:
            try:
                await self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
                await self._writer.execute("COMMIT")
            except BaseException as error:
                # After a failed COMMIT or a full disk SQLite may have rolled back by itself.
                with suppress(sqlite3.Error):
                    await self._writer.execute("ROLLBACK")
                if _cannot_serve(error):
                    raise StoreUnavailable from error
                raise

    @asynccontextmanager
    async def read(self) -> AsyncIterator[aiosqlite.Connection]:
        """The reader: each statement sees what was last committed."""
        try:
            yield self._reader
        except sqlite3.DatabaseError as error:
            if _cannot_serve(error):
                raise StoreUnavailable from error
            raise

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[aiosqlite.Connection]:
        """A connection of its own, whose statements all see the same moment."""
        try:
            connection = await _connect(self.path)
            try:
                await connection.execute("PRAGMA query_only = ON")
                await connection.execute("BEGIN")
                yield connection
            finally:
                await connection.close()
        except sqlite3.DatabaseError as error:
            if _cannot_serve(error):
                raise StoreUnavailable from error
            raise

    async def foreign_version(self) -> int:
        """A number that changes when another process has committed (PRAGMA data_version)."""
        async with self._writing:
            try:
                rows = await self._writer.execute_fetchall("PRAGMA data_version")
            except sqlite3.DatabaseError as error:
                if _cannot_serve(error):
                    raise StoreUnavailable from error
                raise
        return int(first(rows)[0])


def _cannot_serve(error: BaseException) -> bool:
    """The file's or the host's fault, not the statement's: sqlite3 raises a bare DatabaseError for a damaged file."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def first(rows: Iterable[sqlite3.Row]) -> sqlite3.Row:
    """The first of rows that cannot be empty."""
    return next(iter(rows))


async def _connect(path: Path) -> aiosqlite.Connection:
    # aiosqlite leaves its thread behind, and that thread a traceback, when its own connect() fails.
    await asyncio.to_thread(lambda: sqlite3.connect(path).close())
    connection = await aiosqlite.connect(path, isolation_level=None)
    try:
        connection.row_factory = sqlite3.Row
        for pragma in PRAGMAS:
            await connection.execute(pragma)
    except BaseException:
        await connection.close()
        raise
    return connection


def explain(error: sqlite3.Error, path: Path) -> StoreError:
    """SQLite's error as one line that names the file and what to try."""
    if isinstance(error, sqlite3.OperationalError):
        return StoreError(f"cannot open the store {path}: {error}; check that the file and its folder are writable")
    return StoreError(f"the store {path} is damaged: {error}; bring a backup back with: wg-appliance restore FILE")
