"""What looks again and again at the store learns of each commit, of this process or another, without reading it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from appliance.store.commits import Commits, StoreNews
from appliance.store.database import Store

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_each_commit_is_news_once_and_one_that_is_rolled_back_is_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await Store.open(tmp_path / "store.db")
        news, others = StoreNews(store.commits), StoreNews(store.commits)
        assert news.is_any()
        news.taken()
        assert not news.is_any()
        async with store.write() as db:
            await db.execute("UPDATE node SET drained = 1")
            assert not news.is_any()  # not committed yet
        assert news.is_any()
        assert news.is_any()  # until it is taken: reading may fail
        news.taken()
        with closing(sqlite3.connect(store.path)) as command, command:
            command.execute("UPDATE node SET drained = 0")
        assert news.is_any()
        news.taken()
        assert not news.is_any()
        assert others.is_any()
        await store.checkpoint()
        await store.close()

    asyncio.run(scenario())


def test_what_is_committed_while_it_is_read_is_news_afterwards(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await Store.open(tmp_path / "store.db")
        news = StoreNews(store.commits)
        assert news.is_any()
        async with store.write() as db:
            await db.execute("UPDATE node SET drained = 1")
        news.taken()
        assert news.is_any()
        await store.close()

    asyncio.run(scenario())


def test_where_commits_cannot_be_told_everything_is_read(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"no database" * 100)
    news = StoreNews(commits := Commits(tmp_path / "store.db"))
    for _ in range(2):
        assert news.is_any()
        news.taken()
    commits.close()


def test_a_single_exit_opens_no_connection_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        opened = []
        store = await Store.open(tmp_path / "store.db")
        monkeypatch.setattr(sqlite3, "connect", lambda *arguments, **_: opened.append(arguments))
        await store.close()
        assert not opened

    asyncio.run(scenario())
