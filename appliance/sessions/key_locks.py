"""Locks public keys: requests for the same key run one after another, all others in parallel."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable


GATE_S = 5.0  # the longest that a closed gate delays a request


class KeyLocks:
    """Keeps a lock for each key that is held or waited for, and for no other."""

    def __init__(self) -> None:
        self._locks: dict[bytes, asyncio.Lock] = {}
        self._users: dict[bytes, int] = {}
        self._gates: dict[bytes, asyncio.Event] = {}  # set once it is open

    @asynccontextmanager
    async def hold(self, key: bytes) -> AsyncIterator[None]:
        """Holds the key's lock; waits for its gate and for other holders first."""
        await self._pass_gate(key)
        async with self._hold_now(key):
            yield

    @asynccontextmanager
    async def hold_free(self, keys: Iterable[bytes]) -> AsyncIterator[frozenset[bytes]]:
        """Holds those of the keys that are neither held nor waited for, and yields them. Never waits.

        Closes a gate at the others until the next call: new requests wait behind it, so that no stream of requests
        keeps a key from ever being free.
        """
        wanted = frozenset(keys)
        free = frozenset(key for key in wanted if not self.held(key))
        self._close_gates(wanted - free)
        async with AsyncExitStack() as stack:
            for key in free:
                # A free lock is acquired without yielding to another task.
                await stack.enter_async_context(self._hold_now(key))
            yield free

    def held(self, key: bytes) -> bool:
        """Tells whether the key is held or waited for."""
        return key in self._locks

    def _close_gates(self, keys: frozenset[bytes]) -> None:
        """Closes the gates of these keys, and opens all others."""
        for key in self._gates.keys() - keys:
            self._gates.pop(key).set()
        for key in keys:
            self._gates.setdefault(key, asyncio.Event())

    async def _pass_gate(self, key: bytes) -> None:
        """Waits until the key's gate opens, but no longer than GATE_S: a ticker that fails blocks no request."""
        gate = self._gates.get(key)
        if gate is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(GATE_S):
                    await gate.wait()

    @asynccontextmanager
    async def _hold_now(self, key: bytes) -> AsyncIterator[None]:
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._users[key] = self._users.get(key, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]
