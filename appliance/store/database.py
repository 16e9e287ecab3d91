"""Opens the store with one writer and one reader connection, and sets their pragmas."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Protocol, Self

import aiosqlite

from appliance._native import lib
from appliance.domain.errors import StoreError, StoreUnavailable
from appliance.store import migration, store_files
from appliance.store.commits import Commits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from pathlib import Path

PATIENCE_S = 3.0
BUSY_PAUSE_S = 0.01
WAL_BYTES = 16 * 1024 * 1024  # the WAL is truncated to this size once no long read holds it
# An upper bound; the store of 20,000 sessions is 10 MB. With SQLite's default of 2 MB, each tick reads the pages it
# writes from the file again: its statements take six times as long.
WRITER_CACHE_KIB = 16 * 1024
# What a cursor fetches: each time is a way to the connection's thread and back, which with aiosqlite's default of 64
# takes a fifteenth of the time of reading all sessions.
ROWS_AT_ONCE = 256

# WAL lets the reader and admin commands read while the writer writes. FULL makes a commit survive a power
# cut: a client that was told 201 finds its session afterwards. https://www.sqlite.org/pragma.html
PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA journal_size_limit = {WAL_BYTES}",
)


class Observer(Protocol):
    def __call__(self, operation: str, seconds: float, *, failed: bool) -> None:
        """Receives the duration of one operation: read or write. `failed`: the store could not serve."""


def _unobserved(operation: str, seconds: float, *, failed: bool) -> None:
    pass


class Store:
    """Serves reads and writes. Each method raises StoreUnavailable while SQLite cannot serve (locked, full, damaged).

    `patience_s`: how long to wait for other writers, in this process and in others.
    """

    def __init__(
        self,
        path: Path,
        writer: aiosqlite.Connection,
        reader: aiosqlite.Connection,
        patience_s: float = PATIENCE_S,
        observer: Observer = _unobserved,
    ) -> None:
        self.path = path
        self.commits = Commits(path)
        self._writer = writer
        self._reader = reader
        self._patience_s = patience_s
        self._observer = observer
        self._writing = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        path: Path,
        patience_s: float = PATIENCE_S,
        observer: Observer = _unobserved,
        served: Callable[[], bool] = lambda: False,
    ) -> Self:
        """Opens the file at `path`; creates it and migrates it to this version's schema if needed.

        `served` tells whether another process serves it, from which it must not be migrated away. Raises StoreError,
        naming the file, if it is corrupt, newer than this program, served and older, or not readable.
        """
        opened: list[aiosqlite.Connection] = []
        try:
            for _ in range(2):
                opened.append(await _connect(path, patience_s))
                if len(opened) == 1:
                    await migration.migrate(opened[0], path, served)
        except BaseException as error:
            for connection in opened:
                await connection.close()
            if isinstance(error, sqlite3.Error):
                raise explain(error, path) from error
            raise
        writer, reader = opened
        await writer.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")
        await reader.execute("PRAGMA query_only = ON")
        return cls(path, writer, reader, patience_s, observer)

    async def close(self) -> None:
        async with self._writing:
            self.commits.close()
            await self._reader.close()
            await self._writer.close()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[aiosqlite.Connection]:
        """Runs one transaction: commits when the block ends, rolls back when it raises. Writers are serialized."""
        with self._observed("write"):
            async with self._write_lock(), _serving(self._writer):
                try:
                    await self._writer.execute("BEGIN IMMEDIATE")
                    yield self._writer
                    await self._writer.execute("COMMIT")
                except BaseException:
                    # After a failed COMMIT or a full disk SQLite may have rolled back by itself.
                    with suppress(sqlite3.Error):
                        await self._writer.execute("ROLLBACK")
                    raise

    @asynccontextmanager
    async def read(self) -> AsyncIterator[aiosqlite.Connection]:
        """Yields the reader connection: each statement sees the last commit."""
        with self._observed("read"):
            async with _serving(self._reader):
                yield self._reader

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[aiosqlite.Connection]:
        """Opens a separate connection, whose statements all see the same snapshot."""
        async with _serving(None):
            connection = await _connect(self.path, self._patience_s)
            try:
                await connection.execute("PRAGMA query_only = ON")
                await connection.execute("BEGIN")
                yield connection
            finally:
                await connection.close()

    async def give_back(self, pages: int) -> None:
        """Gives up to so many free pages back to the disk, in a transaction of its own."""
        with self._observed("write"):
            async with self._write_lock(), _serving(self._writer):
                # Each step of the statement frees one page, and execute() takes only the first: its rows are empty.
                await self._writer.executescript(f"PRAGMA incremental_vacuum({pages:d})")

    async def checkpoint(self) -> None:
        """Copies what was committed from the WAL into the file, which then has its new size; waits for no reader."""
        with self._observed("write"):
            async with self._write_lock(), _serving(self._writer):
                await self._writer.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)")

    async def shrink_memory(self) -> None:
        """Frees cached pages, and returns what is free to the operating system.

        For when all sessions were read: most of the pages are not read again, and what was made of them has gone.
        """
        async with self._write_lock(), _serving(self._writer):
            await self._writer.execute("PRAGMA shrink_memory")
        await asyncio.to_thread(lib.wga_trim_memory)

    async def foreign_version(self) -> int:
        """Returns a number that changes when another process has committed (PRAGMA data_version)."""
        async with self._write_lock(), _serving(self._writer):
            rows = await self._writer.execute_fetchall("PRAGMA data_version")
        return int(first(rows)[0])

    @contextmanager
    def _observed(self, operation: str) -> Iterator[None]:
        began, failed = time.perf_counter(), False
        try:
            yield
        except StoreUnavailable:
            failed = True
            raise
        finally:
            self._observer(operation, time.perf_counter() - began, failed=failed)

    @asynccontextmanager
    async def _write_lock(self) -> AsyncIterator[None]:
        """Locks out other writers of this process; each waits `patience_s` at most, however many are queued before it.

        Raises StoreUnavailable after that time.
        """
        try:
            async with asyncio.timeout(self._patience_s):
                await self._writing.acquire()
        except TimeoutError:
            raise StoreUnavailable from TimeoutError(f"waited {self._patience_s:g} s for other writers")
        try:
            yield
        finally:
            self._writing.release()


@asynccontextmanager
async def _serving(connection: aiosqlite.Connection | None) -> AsyncIterator[None]:
    """Raises StoreUnavailable if SQLite cannot serve, its error chained."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if not _cannot_serve(error):
            raise
        if connection is not None:
            # Pages read from a damaged file must not stay in the connection's cache after the file is repaired.
            with suppress(sqlite3.Error):
                await connection.execute("PRAGMA shrink_memory")
        raise StoreUnavailable from error


def _cannot_serve(error: BaseException) -> bool:
    """Tells whether the file or host is at fault, not the statement. A damaged file raises a bare DatabaseError."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def first(rows: Iterable[sqlite3.Row]) -> sqlite3.Row:
    """Returns the first row. `rows` must not be empty."""
    return next(iter(rows))


async def _connect(path: Path, patience_s: float) -> aiosqlite.Connection:
    # When aiosqlite's own connect() fails, it leaks its thread, which prints a traceback; so connect once before.
    await asyncio.to_thread(_try, path)
    connection = await aiosqlite.connect(path, isolation_level=None, timeout=patience_s, iter_chunk_size=ROWS_AT_ONCE)
    try:
        connection.row_factory = sqlite3.Row
        if not first(await connection.execute_fetchall("PRAGMA page_count"))[0]:
            # Only before anything is in the file; see free_pages.
            await _patiently(connection, "PRAGMA auto_vacuum = INCREMENTAL", patience_s)
        await _patiently(connection, PRAGMAS[0], patience_s)
        for pragma in PRAGMAS[1:]:
            await connection.execute(pragma)
    except BaseException:
        await connection.close()
        raise
    return connection


def _try(path: Path) -> None:
    require_regular(path)
    sqlite3.connect(path).close()


def require_regular(path: Path) -> None:
    """Raises StoreError, naming the file, if one of the store's files is a FIFO, a folder or the like."""
    if (found := store_files.irregular(path)) is not None:
        raise StoreError(damaged(path, f"{found.name} is not a regular file"))


async def _patiently(connection: aiosqlite.Connection, statement: str, patience_s: float) -> None:
    """Retries a statement for which SQLite does not wait: switching a new store to WAL locks out other connections."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            await connection.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        await asyncio.sleep(BUSY_PAUSE_S)


def explain(error: sqlite3.Error, path: Path) -> StoreError:
    """Turns SQLite's error into one line that names the file and a remedy."""
    if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(f"cannot open the store {path}: another process is writing to it; try again")
    if isinstance(error, sqlite3.OperationalError):
        return StoreError(f"cannot open the store {path}: {error}; check that the file and its folder are writable")
    return StoreError(damaged(path, str(error)))


def damaged(path: Path, finding: str) -> str:
    first_line = finding.splitlines()[-1] if finding else finding
    return f"the store {path} is damaged: {first_line}; bring a backup back with: wg-appliance restore FILE"
