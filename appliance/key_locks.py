"""One lock a public key: requests about the same client key take turns, all others do not wait."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable


class KeyLocks:
    def __init__(self) -> None:
        self._locks: dict[bytes, asyncio.Lock] = {}
        self._users: dict[bytes, int] = {}

    @asynccontextmanager
    async def hold(self, key: bytes) -> AsyncIterator[None]:
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._users[key] = self._users.get(key, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]

    @asynccontextmanager
    async def hold_free(self, keys: Iterable[bytes]) -> AsyncIterator[frozenset[bytes]]:
        """Hold those of the keys that nobody holds or waits for, and yield them. Waits for none."""
        free = frozenset(key for key in keys if not self.held(key))
        async with AsyncExitStack() as stack:
            for key in free:
                # A free lock is taken without giving way to another task.
                await stack.enter_async_context(self.hold(key))
            yield free

    def held(self, key: bytes) -> bool:
        return key in self._locks
