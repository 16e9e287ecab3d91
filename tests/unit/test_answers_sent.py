"""An answer leaves in one piece: one system call, and one packet where it fits into one."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import uvicorn

from appliance.server.http.connection_slots import ConnectionSlots
from appliance.server.http.protocol import HttpConnection

if TYPE_CHECKING:
    from litestar.types import Receive, Scope, Send


class Written(asyncio.Transport):
    """Notes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def write(self, data: Any) -> None:
        if data:
            self.pieces.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...


async def application(_: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"body", "more_body": False})


async def answered(request: bytes) -> list[bytes]:
    config = uvicorn.Config(application, log_config=None, lifespan="off", ws="none", server_header=False)  # type: ignore[arg-type]  # Litestar's types of the same
    config.load()
    state, slots, transport = uvicorn.Server(config).server_state, ConnectionSlots(1), Written()
    with socket.socket() as connection:
        slots.enter(connection)
        protocol = HttpConnection(
            connection, slots, b"x-always: yes\r\n", config=config, server_state=state, app_state={}
        )
        protocol.connection_made(transport)
        protocol.data_received(request)
        await asyncio.gather(*state.tasks)
        protocol.connection_lost(None)
    return transport.pieces


def test_one_piece() -> None:
    """The head goes with the body, and with its own end where there is none; each has the headers of all answers."""
    line = b"HTTP/1.1 200 OK\r\nx-always: yes\r\ncontent-length: 4\r\n\r\n"
    assert asyncio.run(answered(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")) == [line + b"body"]
    assert asyncio.run(answered(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")) == [line]
    first, *rest = asyncio.run(answered(b"GET HTTP/1.1\r\n\r\n"))
    assert first.startswith(b"HTTP/1.1 400 Bad Request\r\nx-always: yes\r\n")
    assert first.endswith(b"}")
    assert not rest
