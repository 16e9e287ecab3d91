"""What a connection had is given back when it is closed: it waits neither for a timer nor for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from asyncio.sslproto import SSLProtocol
from typing import TYPE_CHECKING

import pytest

from appliance.server.http.protocol import HttpConnection
from appliance.server.http.tls import Certificate
from tests.api.test_tls import GET, trusting_anybody
from tests.support.api.served import PATIENCE_S, Bytes, Served, served
from tests.support.certificates import self_signed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

MANY = 8
POST = b"POST /a HTTP/1.1\r\nHost: exit.test\r\nContent-Length: 10\r\n\r\n"
RESET = struct.pack("ii", 1, 0)  # struct linger: to close is to reset


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive(kind: type) -> int:
    return sum(isinstance(each, kind) for each in gc.get_objects())


async def until_none(kind: type) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while alive(kind):  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0.01)


def cut(client: Bytes) -> None:
    """A FIN at once, which over TLS nothing announces."""
    client.writer.transport.abort()


def reset(client: Bytes) -> None:
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.writer.transport.abort()


async def answered(client: Bytes, _: Served) -> None:
    client.send(GET)
    assert (await client.answer())[0] == 200


async def half_asked(client: Bytes, _: Served) -> None:
    client.send(POST + b"half")
    await client.writer.drain()


async def not_answered_yet(client: Bytes, server: Served) -> None:
    server.app.gate.clear()
    asked = len(server.app.asked)
    client.send(GET)
    async with asyncio.timeout(PATIENCE_S):
        while len(server.app.asked) == asked:  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0.01)


async def no_http(client: Bytes, _: Served) -> None:
    client.send(b"GET\0 /a\r\n\r\n")
    assert (await client.answer())[0] == 400


@pytest.mark.parametrize("end", [cut, reset])
@pytest.mark.parametrize("begin", [answered, half_asked, not_answered_yet, no_http])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_nothing_is_left_of_a_closed_connection(
    tmp_path: Path, tls: bool, begin: Callable[[Bytes, Served], Awaitable[None]], end: Callable[[Bytes], None]
) -> None:
    """Wherever in a request a client goes, with or without a word, nothing is left of its connection."""

    async def story() -> None:
        certificate = Certificate(*self_signed(tmp_path, "first")) if tls else None
        async with served(certificate) as server:
            for _ in range(MANY):
                client = await server.connect(trusting_anybody() if tls else None)
                await begin(client, server)
                end(client)
                async with asyncio.timeout(PATIENCE_S):
                    while server.connections:  # noqa: ASYNC110 - it sets no event
                        await asyncio.sleep(0.01)
                server.app.gate.set()
            await until_none(HttpConnection)

    asyncio.run(story())


def test_nothing_is_left_of_an_unfinished_handshake(tmp_path: Path) -> None:
    """Nor is anything left of a handshake that was not finished; while it stands it takes little."""

    async def story() -> None:
        async with served(Certificate(*self_signed(tmp_path, "first"))) as server:
            begun = [await server.connect() for _ in range(MANY)]
            for client in begun:
                client.send(GET[:3])
            async with asyncio.timeout(PATIENCE_S):
                while alive(SSLProtocol) < MANY:  # noqa: ASYNC110 - it sets no event
                    await asyncio.sleep(0.01)
            sizes = {len(each._ssl_buffer) for each in gc.get_objects() if isinstance(each, SSLProtocol)}
            assert sizes == {16 * 1024}
            for client in begun:
                await client.close()
            await until_none(SSLProtocol)

    asyncio.run(story())
