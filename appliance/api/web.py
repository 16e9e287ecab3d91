"""uvicorn, as this process wants it: on sockets bound before, with signals and logging left to the server."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from litestar.types import ASGIApp


class WebServer:
    """Serves one ASGI application on one bound socket."""

    def __init__(
        self, app: ASGIApp, listener: socket.socket, grace_s: int, tls: tuple[Path, Path] | None = None
    ) -> None:
        """`grace_s`: how long requests under way may still take once stopped. `tls`: certificate and key files."""
        cert, key = tls if tls is not None else (None, None)
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            timeout_graceful_shutdown=grace_s,
            ssl_certfile=cert,
            ssl_keyfile=key,
        )
        self._server = _Server(config)
        self._listener = listener

    async def run(self) -> None:
        await self._server.serve(sockets=[self._listener])

    @property
    def started(self) -> asyncio.Event:
        """Set once requests are answered."""
        return self._server.answering

    def stop(self) -> None:
        """Accept no more, finish what is under way; `run` then returns."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answering = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the whole process's business: the ticker and the tunnel have to stop in order too."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.answering.set()
