"""Applies numbered SQL migrations, the schema's versions, in order, each in one transaction."""

from __future__ import annotations

import sqlite3
from importlib import resources
from typing import TYPE_CHECKING

from appliance.domain.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import aiosqlite

# "wgap": distinguishes the store from any other SQLite database. https://www.sqlite.org/fileformat.html#application_id
APPLICATION_ID = 0x77676170


def migrations() -> list[tuple[int, str]]:
    """Returns all migrations as (version, SQL), oldest first. The version is the number that starts the file name.

    Raises StoreError if a migration is missing.
    """
    folder = resources.files("appliance.store") / "migrations"
    numbered = [(int(f.name.split("_")[0]), f.read_text("utf-8")) for f in folder.iterdir() if f.name.endswith(".sql")]
    return in_order(numbered)


def in_order(migrations: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    """Sorts migrations by version.

    Raises StoreError if one is missing: an incomplete installation must not touch a store.
    """
    ordered = sorted(migrations)
    for expected, (number, _) in enumerate(ordered, 1):
        if number != expected:
            raise StoreError(f"this installation lacks the store's migration {expected}: install wg-appliance again")
    return ordered


async def migrate(connection: aiosqlite.Connection, path: Path, served: Callable[[], bool]) -> None:
    """Migrates the store to the newest version. Raises StoreError if it is newer still, or another program's.

    `served`, asked if the store is not of that version, tells whether a server runs on it: raises StoreError too.
    """
    known = migrations()
    newest = known[-1][0]
    version = await _pragma(connection, "user_version")
    application = await _pragma(connection, "application_id")
    if version > newest:
        raise StoreError(
            f"the store {path} is of version {version}, this wg-appliance knows up to {newest}: "
            "install the newer wg-appliance again, or restore a backup made before the upgrade"
        )
    if application not in (0, APPLICATION_ID) or (version and application != APPLICATION_ID):
        raise StoreError(f"{path} is a database of another program; set node.state_dir to another folder")
    if 0 < version < newest and served():
        raise StoreError(
            f"the store {path} is of version {version}, and so is the server that runs on it; this wg-appliance would "
            f"change it to {newest}, which that server cannot use: restart the server first"
        )
    for number, sql in known:
        if number > version:
            await _apply(connection, number, sql)


async def _apply(connection: aiosqlite.Connection, number: int, sql: str) -> None:
    await connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have migrated while this one waited for the lock. Reading the schema makes SQLite take it
        # anew where it has changed: ALTER TABLE RENAME COLUMN looks for its column in the one that was read before.
        await connection.execute_fetchall("SELECT count(*) FROM sqlite_schema")
        if await _pragma(connection, "user_version") < number:
            for statement in statements(sql):
                await connection.execute(statement)
            await connection.execute(f"PRAGMA user_version = {number:d}")
            await connection.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")
        await connection.execute("COMMIT")
    except BaseException:
        await connection.execute("ROLLBACK")
        raise


def statements(sql: str) -> Iterator[str]:
    """Yields the statements of a script one by one: sqlite3's own executescript() would commit in between.

    Raises StoreError if the script ends in the middle of a statement.
    """
    pending = ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip() and not all(line.startswith("--") or not line.strip() for line in pending.splitlines()):
        raise StoreError(f"a migration ends in the middle of a statement: {pending.strip()[:60]}")


async def _pragma(connection: aiosqlite.Connection, name: str) -> int:
    rows = await connection.execute_fetchall(f"PRAGMA {name}")
    return int(next(iter(rows))[0])
