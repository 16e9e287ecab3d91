"""Lets one task at a time read counters or change peers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from appliance.network.wireguard.tunnel import Tunnel
    from appliance.sessions.key_locks import KeyLocks


@dataclass(frozen=True, slots=True)
class PeerAccess:
    """Holds what a request needs to change a peer: the tunnel, and the locks that say when it may be changed.

    Hold `exit_lock` while reading counters or changing peers, until the store has the outcome. A request also holds
    its public key in `keys`, and takes that first. `tunnel` must answer each call or raise TunnelError within
    `apply_timeout` seconds.
    """

    tunnel: Tunnel
    exit_lock: asyncio.Lock
    keys: KeyLocks
    apply_timeout: float

    def deadline(self) -> float:
        """Returns the event loop's time by which a change that begins now must be applied."""
        return asyncio.get_running_loop().time() + self.apply_timeout

    @asynccontextmanager
    async def locked(self, deadline: float) -> AsyncIterator[None]:
        """Holds the exit lock. Raises TimeoutError if it is not free by `deadline`, in the event loop's time.

        The deadline does not interrupt the body: a commit that is cancelled may have been made or not.
        """
        async with asyncio.timeout_at(deadline):
            await self.exit_lock.acquire()
        try:
            yield
        finally:
            self.exit_lock.release()
