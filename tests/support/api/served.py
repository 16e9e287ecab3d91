"""A web server as the appliance runs it, on a small application, and clients that write bytes."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from appliance.server.api.client_address import Sources, source_of_peer
from appliance.server.http.uvicorn_server import WebServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from litestar.types import ASGIApp, Receive, Scope, Send

    from appliance.server.http.tls import Certificate

PATIENCE_S = 60.0


@dataclass
class Echo:
    """Answers with what was asked: method, path, and how many bytes of body came. `gate` shut: it waits with that."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)
    left: int = 0  # clients that left before their body was whole
    size: int = 0  # of the answer, at least

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(f"{scope['method']} {scope['path']}")
        length, more = 0, scope["method"] == "POST"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                return
            length, more = length + len(message["body"]), message["more_body"]
        await self.gate.wait()
        body = f"{self.asked[-1]} {length}".encode().ljust(self.size)
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


class Bytes:
    """A connection, spoken to as it pleases."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, text: bytes) -> None:
        self.writer.write(text)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next one: status, headers with names in lower case, body."""
        async with asyncio.timeout(PATIENCE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(head[0].split()[1]), headers, body

    async def rest(self) -> bytes:
        """What comes until the server closes."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self.reader.read()
        except ConnectionResetError:
            return b""

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


class Served:
    def __init__(self, server: WebServer, app: Echo, port: int) -> None:
        self.server = server
        self.app = app
        self.port = port
        self._clients: list[Bytes] = []

    @property
    def connections(self) -> int:
        """That the server has."""
        return len(self.server._server.server_state.connections)

    async def connect(self, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1") -> Bytes:
        """`source`: one of the loopback's addresses."""
        name = None if tls is None else "exit.test"
        ends = {"local_addr": (source, 0), "server_hostname": name}
        client = Bytes(*await asyncio.open_connection("127.0.0.1", self.port, ssl=tls, **ends))  # type: ignore[arg-type]  # asyncio's own names
        self._clients.append(client)
        return client

    async def close_clients(self) -> None:
        for client in self._clients:
            await client.close()


@asynccontextmanager
async def served(certificate: Certificate | None = None, app: ASGIApp | None = None) -> AsyncIterator[Served]:
    """Stopped at the end, in time, with nothing left that runs."""
    echo = Echo()
    echo.gate.set()
    before = asyncio.all_tasks()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        source_of = partial(source_of_peer, sources=Sources())
        server = WebServer(app or echo, [listener], 1, certificate, source_of)
        running = asyncio.create_task(server.run())
        await server.started.wait()
        stand = Served(server, echo, listener.getsockname()[1])
        try:
            yield stand
        finally:
            server.stop()
            async with asyncio.timeout(PATIENCE_S):
                await running
            await stand.close_clients()
    assert asyncio.all_tasks() <= before
