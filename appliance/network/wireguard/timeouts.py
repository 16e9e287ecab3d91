"""Wraps a tunnel with timeouts."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from appliance.domain.errors import TunnelError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from appliance.network.wireguard.tunnel import DeviceChange, Dump, Link, LinkChange, PeerChange, Tunnel


class TimedTunnel:
    """Wraps any `Tunnel`; each call raises TunnelError after `seconds` without an answer."""

    def __init__(self, tunnel: Tunnel, seconds: float) -> None:
        self._tunnel = tunnel
        self._seconds = seconds

    @property
    def backend(self) -> str:
        return self._tunnel.backend

    @property
    def dump_retries(self) -> int:
        return self._tunnel.dump_retries

    async def link(self) -> Link | None:
        async with self._limit():
            return await self._tunnel.link()

    async def change_link(self, change: LinkChange) -> None:
        async with self._limit():
            await self._tunnel.change_link(change)

    async def configure(self, change: DeviceChange) -> None:
        async with self._limit():
            await self._tunnel.configure(change)

    async def dump(self) -> Dump:
        async with self._limit():
            return await self._tunnel.dump()

    async def apply(self, changes: Iterable[PeerChange]) -> None:
        async with self._limit():
            await self._tunnel.apply(changes)

    async def delete(self) -> None:
        async with self._limit():
            await self._tunnel.delete()

    async def close(self) -> None:
        await self._tunnel.close()

    @asynccontextmanager
    async def _limit(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except TimeoutError as error:
            raise TunnelError(f"no answer from the {self.backend} tunnel within {self._seconds:g} s") from error
