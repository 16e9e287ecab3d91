"""The store: how it is opened, what a transaction is, and that its schema holds what it says."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import StoreError, StoreUnavailable
from appliance.store.database import PATIENCE_S, WAL_BYTES, Store, first

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import aiosqlite

PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 3000}


def on_store(path: Path, story: Callable[[Store], Awaitable[None]], patience_s: float = PATIENCE_S) -> None:
    async def run() -> None:
        store = await Store.open(path, patience_s)
        try:
            await story(store)
        finally:
            await store.close()

    asyncio.run(run())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


async def pragma(db: aiosqlite.Connection, name: str) -> object:
    return first(await db.execute_fetchall(f"PRAGMA {name}"))[0]


def test_the_pragmas_hold_on_both_connections(path: Path) -> None:
    """What is asked for holds, on both live connections; the reader cannot write."""

    async def story(store: Store) -> None:
        async with store.write() as db:
            assert {name: await pragma(db, name) for name in PRAGMAS} == PRAGMAS
        async with store.read() as db:
            assert {name: await pragma(db, name) for name in PRAGMAS} == PRAGMAS
            assert await pragma(db, "query_only") == 1

    on_store(path, story)


def test_a_reader_that_stays_long(path: Path) -> None:
    """While somebody reads the log can only grow; afterwards the disk gets back what it took."""
    wal = path.with_name(f"{path.name}-wal")

    async def put(store: Store, nbytes: int) -> None:
        async with store.write() as db:
            await db.execute(
                "INSERT INTO accounts (id, name, tier, created_at) VALUES ('a', ?, 'free', 0)", ["x" * nbytes]
            )
            await db.execute("DELETE FROM accounts")

    async def story(store: Store) -> None:
        async with store.snapshot() as reader:
            await reader.execute_fetchall("SELECT * FROM accounts")
            while wal.stat().st_size <= 2 * WAL_BYTES:
                await put(store, 1_000_000)
        for _ in range(3):
            await put(store, 1)
        assert wal.stat().st_size <= WAL_BYTES

    on_store(path, story)


def schema(path: Path) -> list[tuple[str, str, str]]:
    """(table, column, declared type) of all columns."""
    with closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        tables = [name for (name,) in found]
        return [
            (table, column, kind)
            for table in tables
            for column, kind in db.execute("SELECT name, type FROM pragma_table_info(?)", (table,))
        ]


async def nothing(_: Store) -> None:
    return


def test_every_table_is_strict_and_holds_no_fraction(path: Path) -> None:
    """Every table is STRICT, and no column holds a fraction: money, bytes and instants are integers."""
    on_store(path, nothing)
    with closing(sqlite3.connect(path)) as db:
        strict = dict(db.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"))
        assert set(strict) >= {"node", "accounts", "tokens", "sessions", "peers"}
        assert {name for name, is_strict in strict.items() if not is_strict} <= {"sqlite_schema", "sqlite_sequence"}
    assert {kind for _, _, kind in schema(path)} == {"INTEGER", "TEXT", "BLOB"}


def test_no_place_for_secrets(path: Path) -> None:
    """No column is meant for a private key or a token."""
    on_store(path, nothing)
    assert not [name for _, name, _ in schema(path) if "private" in name or "secret" in name or name == "token"]


def test_a_transaction_that_raises_leaves_nothing(path: Path) -> None:
    """A block that raises leaves nothing; one that ends is seen by the reader."""

    async def story(store: Store) -> None:
        async def fail() -> None:
            async with store.write() as db:
                await db.execute("UPDATE node SET requested = 5")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        async with store.read() as db:
            assert first(await db.execute_fetchall("SELECT requested FROM node"))[0] == 0
        async with store.write() as db:
            await db.execute("UPDATE node SET requested = 6")
        async with store.read() as db:
            assert first(await db.execute_fetchall("SELECT requested FROM node"))[0] == 6

    on_store(path, story)


def test_writers_take_turns(path: Path) -> None:
    """Fifty tasks that read, wait and write add up."""

    async def story(store: Store) -> None:
        async def count() -> None:
            async with store.write() as db:
                (value,) = first(await db.execute_fetchall("SELECT requested FROM node"))
                await asyncio.sleep(0)
                await db.execute("UPDATE node SET requested = ?", (value + 1,))

        await asyncio.gather(*(count() for _ in range(50)))
        async with store.read() as db:
            assert first(await db.execute_fetchall("SELECT requested FROM node"))[0] == 50

    on_store(path, story)


def test_a_cancelled_writer_leaves_nothing(path: Path) -> None:
    """A writer that is cancelled leaves nothing, and the next one is not in its way."""

    async def story(store: Store) -> None:
        inside = asyncio.Event()

        async def hang() -> None:
            async with store.write() as db:
                await db.execute("UPDATE node SET requested = 5")
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(hang())
        await inside.wait()
        task.cancel()
        await asyncio.wait({task})
        async with store.write() as db:
            assert first(await db.execute_fetchall("SELECT requested FROM node"))[0] == 0

    on_store(path, story)


def test_a_locked_store_is_unavailable_to_write_and_readable(path: Path) -> None:
    """A store that another process holds is unavailable to write, with the cause; reading goes on."""

    async def story(store: Store) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StoreUnavailable) as refusal:
                async with store.write():
                    pass
            assert "locked" in str(refusal.value.__cause__)
            async with store.read() as db:
                await db.execute_fetchall("SELECT * FROM node")
        async with store.write():
            pass

    on_store(path, story, patience_s=0.01)


def test_each_writer_waits_its_own_time_for_a_locked_store(path: Path) -> None:
    """While another process holds the store, each of many writers waits its own time and not all of theirs."""

    async def story(store: Store) -> None:
        async def write() -> None:
            async with store.write():
                raise AssertionError("the store is held")

        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            async with asyncio.timeout(60):
                refusals = await asyncio.gather(*(write() for _ in range(200)), return_exceptions=True)
        assert {type(refusal) for refusal in refusals} == {StoreUnavailable}

    on_store(path, story, patience_s=0.2)


def test_a_broken_constraint_is_raised_as_it_is(path: Path) -> None:
    """A broken constraint is no unavailable store: it is raised as it is, and undone."""

    async def story(store: Store) -> None:
        with pytest.raises(sqlite3.IntegrityError):
            async with store.write() as db:
                await db.execute("INSERT INTO tokens (id, account_id, hash, created_at) VALUES ('t', 'no', x'00', 0)")

    on_store(path, story)


def test_foreign_version(path: Path) -> None:
    """It changes when another process commits, and not by our own commits."""

    async def story(store: Store) -> None:
        before = await store.foreign_version()
        async with store.write() as db:
            await db.execute("UPDATE node SET drained = 0")
        assert await store.foreign_version() == before
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE node SET drained = 1")
        assert await store.foreign_version() != before

    on_store(path, story)


@pytest.mark.parametrize(
    "content", [b"no database" * 100, b"SQLite format 3\0" + b"\xff" * 4080], ids=["text", "damaged"]
)
def test_a_file_that_is_no_store_is_refused_and_kept(path: Path, content: bytes) -> None:
    """A file that is no store is refused, by name and with what to try; it is left as it was."""
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"store\.sqlite is damaged.*restore"):
        on_store(path, nothing)
    assert path.read_bytes() == content


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    """A place where nothing can be written is named."""
    with pytest.raises(StoreError, match=r"cannot open the store .*nowhere.*check that"):
        on_store(tmp_path / "nowhere" / "store.sqlite", nothing)


SESSION = {
    "id": "'ses_1'", "account_id": "'acc_1'", "tier": "'free'", "region": "'fsn'", "public_ip": "'192.0.2.1'",
    "public_key": "zeroblob(32)", "address_offset": "2", "ipv6": "1", "state": "'live'", "created_at": "0",
    "expires_at": "1", "quiet_since_ms": "0", "quiet_boot_id": "'b'",
}  # fmt: skip
IMPOSSIBLE: dict[str, dict[str, str]] = {
    "unknown account": {"account_id": "'acc_2'"},
    "unknown tier": {"tier": "'gold'"},
    "short key": {"public_key": "zeroblob(31)"},
    "key as text": {"public_key": "'a'"},
    "the exit's address": {"address_offset": "1"},
    "unknown state": {"state": "'gone'"},
    "ended without a reason": {"state": "'terminated'", "terminated_at": "1"},
    "ended without a time": {"state": "'terminated'", "reason": "'idle'"},
    "live with a reason": {"reason": "'idle'"},
    "unknown reason": {"state": "'closing'", "reason": "'bored'"},
    "fraction": {"created_at": "0.5"},
    "negative bytes": {"bytes_in": "-1"},
}


def insert(db: sqlite3.Connection, columns: dict[str, str]) -> None:
    db.execute(f"INSERT INTO sessions ({', '.join(columns)}) VALUES ({', '.join(columns.values())})")  # noqa: S608 - ours


@pytest.mark.parametrize("change", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_the_schema_refuses_impossible_rows(path: Path, change: dict[str, str]) -> None:
    """The schema refuses what no session can be."""
    on_store(path, nothing)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("INSERT INTO accounts (id, name, tier, created_at) VALUES ('acc_1', 'ada', 'free', 0)")
        with pytest.raises(sqlite3.IntegrityError):
            insert(db, SESSION | change)
        insert(db, SESSION)


TWICE: dict[str, dict[str, str]] = {
    "id": {"public_key": "randomblob(32)", "address_offset": "3"},
    "live key": {"id": "'ses_2'", "address_offset": "3"},
    "live address": {"id": "'ses_2'", "public_key": "randomblob(32)"},
}


@pytest.mark.parametrize("change", TWICE.values(), ids=TWICE)
def test_shared_by_no_two(path: Path, change: dict[str, str]) -> None:
    """No two sessions share an id; no two live or closing ones a key or an address; a pending one may."""
    on_store(path, nothing)
    with closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO accounts (id, name, tier, created_at) VALUES ('acc_1', 'ada', 'free', 0)")
        insert(db, SESSION)
        for state in ({}, {"state": "'closing'", "reason": "'idle'"}):
            with pytest.raises(sqlite3.IntegrityError):
                insert(db, SESSION | change | state)
        if "id" in change:
            insert(db, SESSION | change | {"state": "'pending'"})
