"""A store's file gives the room of what was deleted back; one of an older version is rewritten for it, once."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from appliance.store import free_pages
from appliance.store.database import Store
from tests.support.small_disk import full, small_disk

if TYPE_CHECKING:
    from pathlib import Path

INCREMENTAL = 2
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


def ask(path: Path, pragma: str) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute(f"PRAGMA {pragma}").fetchone()[0])


def rows(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


async def opened(path: Path) -> Store:
    return await Store.open(path)


def store(path: Path, accounts: int = 0) -> None:
    """With so many accounts that have been deleted again."""

    async def run() -> None:
        await (await opened(path)).close()

    asyncio.run(run())
    with closing(sqlite3.connect(path)) as db, db:
        many = [(f"acc_{n}", "x" * 1000) for n in range(accounts)]
        db.executemany("INSERT INTO accounts (id, name, tier, created_at) VALUES (?, ? || random(), 'free', 0)", many)
        db.execute("INSERT INTO accounts (id, name, tier, created_at) VALUES ('acc_kept', 'ada', 'free', 0)")
        db.execute("DELETE FROM accounts WHERE id <> 'acc_kept'")


def older(path: Path, accounts: int = 0) -> None:
    """As above, with a file as older versions made it."""
    store(path, accounts)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA auto_vacuum = NONE")
        db.execute("VACUUM")
    assert ask(path, "auto_vacuum") == 0


def test_a_new_store_can_shrink(tmp_path: Path) -> None:
    """A new store gives pages back in pieces: as many at a time as it is asked to, until none is free."""
    path = tmp_path / "store.sqlite"
    store(path, accounts=300)

    async def run() -> list[int]:
        s, free = await opened(path), []
        async with s.read() as db:
            free.append(await free_pages.count(db))
        while free[-1]:
            await s.give_back(30)
            async with s.read() as db:
                free.append(await free_pages.count(db))
        await s.close()
        return free

    before = path.stat().st_size
    free = asyncio.run(run())
    assert len(free) > 3
    assert [earlier - later for earlier, later in pairwise(free)][:-1] == [30] * (len(free) - 2)
    assert ask(path, "freelist_count") == 0
    # And some of the pages that say where the others are.
    assert path.stat().st_size <= before - free[0] * 4096
    assert ask(path, "page_count") * 4096 == path.stat().st_size


def test_an_older_store_is_rewritten_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An older store is rewritten while it is open, keeps its rows and its journal, and is left alone afterwards."""
    caplog.set_level(logging.INFO)
    path = tmp_path / "store.sqlite"
    older(path)
    before = rows(path)

    async def run() -> None:
        s = await opened(path)
        async with s.read() as db:
            assert await free_pages.count(db) == 0
        free_pages.prepare(path)
        async with s.write() as db:
            await db.execute("UPDATE node SET requested = requested")
            await db.execute("DELETE FROM accounts WHERE id = 'nobody'")
        async with s.read() as db:
            found = await db.execute_fetchall("SELECT id FROM accounts")
            assert [row["id"] for row in found] == ["acc_kept"]
        await s.close()

    asyncio.run(run())
    assert rows(path) == before
    assert (ask(path, "auto_vacuum"), ask(path, "freelist_count")) == (INCREMENTAL, 0)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"the store {path} can shrink from now on; rewritten in ")
    free_pages.prepare(path)
    assert len(caplog.records) == 1


@needs_root
def test_a_disk_without_room_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without room for the copies, the store stays as it is and serves; one line says what to do."""
    with small_disk(tmp_path / "disk", 6 * 2**20) as folder:
        path = folder / "store.sqlite"
        older(path)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(
                "INSERT INTO accounts (id, name, tier, created_at) VALUES ('big', ?, 'free', 0)", ["x" * 300_000]
            )
        before = rows(path)
        with full(folder, left=700_000):
            free_pages.prepare(path)
            assert (ask(path, "auto_vacuum"), rows(path)) == (0, before)
        (said,) = [record.getMessage() for record in caplog.records]
        assert said.startswith(f"the store {path} keeps the room of what is deleted from it, for what comes: rewriting")
        assert said.endswith(f"MiB in {folder}, where 0 are free; make room, restart")
        free_pages.prepare(path)
        assert (ask(path, "auto_vacuum"), rows(path)) == (INCREMENTAL, before)


def test_a_store_in_use_is_left_for_the_next_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While another process holds the store, it stays as it is."""
    path = tmp_path / "store.sqlite"
    older(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        free_pages.prepare(path)
        other.execute("ROLLBACK")
    assert ask(path, "auto_vacuum") == 0
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.endswith(": database is locked; the next start tries again")
