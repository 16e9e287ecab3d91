"""A process that can die at any of its I/O operations, and whose tasks take turns at each of them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class Killed(BaseException):
    """The process is dead. Whatever unwinds after this reaches neither the store nor the kernel."""


class Process:
    """Every operation on the store and the tunnel goes through `do`.

    What a process does between two operations nobody else can see, so that dying before and after every operation
    is dying at every instruction. `meanwhile` is called around each: there time passes and clients send.
    """

    def __init__(self) -> None:
        self.dead = False
        self.operations = 0
        self._die_at: int | None = None
        self._effective = False
        self._meanwhile: Callable[[], int] = lambda: 0

    def arm(self, die_at: int | None, *, effective: bool, meanwhile: Callable[[], int]) -> None:
        """Die at the `die_at`-th operation from here: before it, or right after it took effect.

        `meanwhile` returns how many turns the other tasks get.
        """
        self._die_at = None if die_at is None else self.operations + die_at
        self._effective = effective
        self._meanwhile = meanwhile

    async def do(self, operation: Callable[[], Awaitable[T]]) -> T:
        await self._give_way()
        self.operations += 1
        last = self.operations == self._die_at
        if last and not self._effective:
            self.dead = True
        self._check()
        try:
            return await operation()
        finally:
            if last:
                self.dead = True
            self._check()
            await self._give_way()

    async def _give_way(self) -> None:
        self._check()
        for _ in range(self._meanwhile()):
            await asyncio.sleep(0)
        self._check()

    def _check(self) -> None:
        if self.dead:
            raise Killed


class Disk:
    """What SQLite meets on the host's disk. `failing`: of the next statements, which fail; see `Failing`."""

    def __init__(self) -> None:
        self.failing: deque[Failing] = deque()

    def next(self) -> Failing:
        return self.failing.popleft() if self.failing else Failing.NOT


class Failing(Enum):
    NOT = "works"
    BEFORE = "fails, and does nothing"
    AFTER = "says that it failed, and was done"


class MortalConnection:
    """What the store uses of an aiosqlite connection, as long as the process lives and the disk works."""

    def __init__(self, inner: Any, process: Process, disk: Disk, committed: Callable[[], None]) -> None:
        self._inner = inner
        self._process = process
        self._disk = disk
        self._committed = committed
        self._thread = asyncio.Lock()  # statements run in the order in which they were asked for

    async def execute(self, sql: str, parameters: Any = ()) -> Any:
        async def operation() -> Any:
            cursor = await self._inner.execute(sql, parameters)
            if sql == "COMMIT":
                self._committed()
            return cursor

        # The store gives up a transaction that failed; what it does then must reach the file.
        if sql != "ROLLBACK":
            return await self._do(operation)
        async with self._thread:
            return await self._process.do(operation)

    async def executemany(self, sql: str, parameters: Any) -> Any:
        return await self._do(lambda: self._inner.executemany(sql, parameters))

    async def execute_fetchall(self, sql: str, parameters: Any = ()) -> Any:
        return await self._do(lambda: self._inner.execute_fetchall(sql, parameters))

    async def _do(self, operation: Callable[[], Awaitable[T]]) -> T:
        async def on_disk() -> T:
            fails = self._disk.next()
            if fails is Failing.BEFORE:
                raise sqlite3.OperationalError("database or disk is full")
            done = await operation()
            if fails is Failing.AFTER:
                raise sqlite3.OperationalError("disk I/O error")
            return done

        async with self._thread:
            return await self._process.do(on_disk)

    async def close(self) -> None:
        """Not an operation: the kernel closes the files of a dead process too. Nothing is committed by it."""
        await self._inner.close()
