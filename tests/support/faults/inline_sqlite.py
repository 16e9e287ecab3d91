"""SQLite with aiosqlite's surface and without its threads: the same file and the same statements, many times faster."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Self

from appliance.store.database import PRAGMAS

if TYPE_CHECKING:
    from pathlib import Path


class InlineCursor:
    def __init__(self, inner: sqlite3.Cursor) -> None:
        self._inner = inner

    @property
    def rowcount(self) -> int:
        return self._inner.rowcount

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._inner.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> sqlite3.Row:
        try:
            row: sqlite3.Row = next(self._inner)
        except StopIteration:
            raise StopAsyncIteration from None
        return row


class InlineConnection:
    def __init__(self, path: Path) -> None:
        self._inner = sqlite3.connect(path, isolation_level=None)
        self._inner.row_factory = sqlite3.Row
        for pragma in PRAGMAS:
            self._inner.execute(pragma)

    async def execute(self, sql: str, parameters: Any = ()) -> InlineCursor:
        return InlineCursor(self._inner.execute(sql, parameters))

    async def executemany(self, sql: str, parameters: Any) -> InlineCursor:
        return InlineCursor(self._inner.executemany(sql, parameters))

    async def execute_fetchall(self, sql: str, parameters: Any = ()) -> list[sqlite3.Row]:
        return self._inner.execute(sql, parameters).fetchall()

    async def close(self) -> None:
        """As when a process dies. sqlite3_close_v2 alone would keep an open transaction for a cursor that is held."""
        if self._inner.in_transaction:
            self._inner.execute("ROLLBACK")
        self._inner.close()
