"""Adapts uvicorn to this process: sockets are bound before, signals and logging are left to the server."""

from __future__ import annotations

import asyncio
import logging
from asyncio import sslproto
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from appliance.server.http.connection_slots import ConnectionSlots
from appliance.server.http.protocol import HEAD_S, LARGEST_HEAD, TAKE_S, HttpConnection

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

    from litestar.types import ASGIApp

    from appliance.server.http.tls import Certificate

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 512
ACCEPTED_IN_A_ROW = 64
KEEP_ALIVE_S = 65  # longer than proxies keep theirs, so that they do not send on a connection that is closing
HEADERS = {
    "Cache-Control": "no-store",  # answers contain keys and current figures
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
HEADERS_OF_TLS = {"Strict-Transport-Security": "max-age=31536000"}

# Allocated per connection before any handshake: 256 KiB by default.
sslproto.SSLProtocol.max_size = 16 * 1024


def _without_source(_: object) -> None:
    """Returns no source: the longest idle connection makes room, whose it may be."""


def _rendered(headers: Mapping[str, str]) -> bytes:
    return b"".join(b"%s: %s\r\n" % (name.lower().encode(), value.encode()) for name, value in headers.items())


class WebServer:
    """Serves one ASGI application on bound sockets, whose connections share the slots."""

    def __init__(
        self,
        app: ASGIApp,
        listeners: Sequence[socket.socket],
        grace_s: int,
        certificate: Certificate | None = None,
        source_of: Callable[[object], str | None] = _without_source,
    ) -> None:
        """`grace_s`: how long running requests may still take after `stop`. `certificate`: serves HTTPS.

        `source_of`: by a peer's address, whose share of the places a connection takes; None: of many clients.
        """
        config = uvicorn.Config(
            app,
            http=HttpConnection,
            ws="none",
            log_config=None,
            log_level="error",  # warnings are about clients' requests
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=grace_s,
            h11_max_incomplete_event_size=LARGEST_HEAD,
        )
        self._server = _Server(config, certificate, source_of)
        self._listeners = listeners

    async def run(self) -> None:
        await self._server.serve(sockets=list(self._listeners))

    @property
    def started(self) -> asyncio.Event:
        """Is set once requests are answered."""
        return self._server.answering

    def stop(self) -> None:
        """Accepts no more requests and finishes the running ones; `run` then returns."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """Accepts connections itself: one is counted, and may be evicted, before its TLS handshake is complete."""

    def __init__(
        self, config: uvicorn.Config, certificate: Certificate | None, source_of: Callable[[object], str | None]
    ) -> None:
        super().__init__(config)
        self._headers = _rendered(HEADERS | (HEADERS_OF_TLS if certificate else {}))
        self.answering = asyncio.Event()
        self._certificate = certificate
        self._source_of = source_of
        self._slots = ConnectionSlots(MOST_CONNECTIONS)
        self._tasks: set[asyncio.Task[None]] = set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the process: the ticker and the tunnel have to be stopped in order too."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.servers = []
        for listener in sockets or []:
            listener.setblocking(False)
            self._start(self._accept(listener))
        self.started = True
        self.answering.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in sockets or []:
            # Else asyncio accepts one more, for a task that is cancelled, and logs an error of its own.
            asyncio.get_running_loop().remove_reader(listener)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await super().shutdown(sockets=sockets)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            for _ in range(ACCEPTED_IN_A_ROW):
                try:
                    connection, peer = await loop.sock_accept(listener)
                except OSError as error:
                    log.error("cannot accept connections: %s", error.strerror)
                    await asyncio.sleep(1)
                    continue
                if self._slots.enter(connection, self._source_of(peer)):
                    self._start(self._connect(connection))
                else:
                    connection.close()
            await asyncio.sleep(0)  # sock_accept does not yield while connections are pending

    async def _connect(self, connection: socket.socket) -> None:
        def protocol() -> HttpConnection:
            return HttpConnection(
                connection,
                self._slots,
                self._headers,
                config=self.config,
                server_state=self.server_state,
                app_state={},
            )

        context = None if self._certificate is None else self._certificate.current()
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                protocol,
                connection,
                ssl=context,
                ssl_handshake_timeout=HEAD_S if context else None,
                ssl_shutdown_timeout=TAKE_S if context else None,
            )
        except (OSError, asyncio.CancelledError) as error:  # the handshake failed; or the server stops
            # The frames in it refer back to it: the connection's buffers would wait for the garbage collector, which
            # counts objects and not their size.
            error.__traceback__ = None
            self._slots.leave(connection)
            connection.close()

    def _start(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
