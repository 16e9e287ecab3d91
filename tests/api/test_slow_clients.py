"""Clients that keep the server waiting lose their connection, and their place goes to whoever comes."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

import pytest

from appliance.server.http import protocol, uvicorn_server
from appliance.server.http.connection_slots import ConnectionSlots
from tests.support.api.exit_under_test import until
from tests.support.api.served import Bytes, Served, served

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

GET = b"GET /a HTTP/1.1\r\nHost: exit.test\r\n\r\n"
LATE = b'{"error":"request timeout","code":"request_timeout"}'


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server waits a little only."""
    for name, seconds in (("HEAD_S", 0.2), ("BODY_S", 0.2), ("UNWANTED_S", 1.0), ("TAKE_S", 0.2)):
        monkeypatch.setattr(protocol, name, seconds)


def on_server(story: Callable[[Served], Awaitable[None]]) -> Callable[[pytest.LogCaptureFixture], None]:
    """Run the story against a server; it has nothing to log."""

    async def whole() -> None:
        async with served() as server:
            await story(server)

    def run(caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            asyncio.run(whole())
        assert [r.getMessage() for r in caplog.records if r.name != "asyncio"] == []

    run.__name__, run.__doc__ = story.__name__, story.__doc__
    return run


@on_server
async def test_a_silent_client_is_let_go(server: Served) -> None:
    """Whoever connects and says nothing is let go without a word."""
    client = await server.connect()
    assert await client.rest() == b""


@on_server
async def test_a_head_that_does_not_end_is_408(server: Served) -> None:
    """A head that does not end is 408, however steadily its bytes come; on a kept connection too."""
    for before in (b"", GET):
        client = await server.connect()
        if before:
            client.send(before)
            assert (await client.answer())[0] == 200
        client.send(b"GET /slow HTTP/1.1\r\nHost: exit.test\r\n")
        dripping = asyncio.create_task(drip(client, b"X-Slow: 1\r\n"))
        status, headers, body = await client.answer()
        dripping.cancel()
        assert (status, headers["connection"], body) == (408, "close", LATE)
        assert await client.rest() == b""
    assert "GET /slow" not in server.app.asked


@on_server
async def test_a_body_that_does_not_end_is_408(server: Served) -> None:
    """A body that does not end is 408, and the application is told that the client has gone."""
    client = await server.connect()
    client.send(b"POST /slow HTTP/1.1\r\nHost: exit.test\r\nContent-Length: 1000000\r\n\r\n")
    dripping = asyncio.create_task(drip(client, b"x"))
    assert (await client.answer())[::2] == (408, LATE)
    dripping.cancel()
    assert await client.rest() == b""
    await until(lambda: server.app.left == 1, "the application is told")


@on_server
async def test_refused_while_it_is_worked_on(server: Served) -> None:
    """A body that turns out to be none is refused once, though the application was about to answer."""
    server.app.gate.clear()
    client = await server.connect()
    client.send(b"GET /early HTTP/1.1\r\nHost: exit.test\r\nTransfer-Encoding: chunked\r\n\r\n")
    await until(lambda: server.app.asked, "it is asked")
    client.send(b"no size\r\n")
    assert (await client.answer())[0] == 400
    server.app.gate.set()
    assert await client.rest() == b""


@on_server
async def test_the_rest_of_an_answered_body_is_thrown_away(server: Served) -> None:
    """The rest of a body that was answered before it ended is thrown away, for a while, and the next request on it is
    answered if it came in time."""
    body = b"x" * 50_000
    client = await server.connect()
    client.send(b"GET /early HTTP/1.1\r\nHost: exit.test\r\nContent-Length: 50000\r\n\r\n")
    assert (await client.answer())[2] == b"GET /early 0"
    client.send(body + GET)
    assert (await client.answer())[2] == b"GET /a 0"
    client.send(b"GET /never HTTP/1.1\r\nHost: exit.test\r\nContent-Length: 50000\r\n\r\n")
    assert (await client.answer())[0] == 200
    dripping = asyncio.create_task(drip(client, b"x"))
    assert await client.rest() == b""
    dripping.cancel()


@on_server
async def test_a_client_that_does_not_read_is_cut_off(server: Served) -> None:
    """Whoever asks and does not read is cut off; what is kept for it is bounded."""
    server.app.size = 2**20
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", server.port))
        await loop.sock_sendall(client, GET * 100)
        await until(lambda: server.app.asked and not server.connections, "it is cut off")
    assert len(server.app.asked) < 20


@on_server
async def test_work_has_no_deadline(server: Served) -> None:
    """A request that is whole is answered, however long that takes: the deadlines are the clients'."""
    server.app.gate.clear()
    client, slow = await server.connect(), await server.connect()
    client.send(GET)
    await until(lambda: server.app.asked, "it is asked")
    slow.send(b"G")
    assert (await slow.answer())[0] == 408  # so much time has passed
    server.app.gate.set()
    assert (await client.answer())[2] == b"GET /a 0"
    client.send(GET)
    assert (await client.answer())[2] == b"GET /a 0"


async def drip(client: Bytes, piece: bytes) -> None:
    while True:
        client.send(piece)
        await asyncio.sleep(0.02)


# Room ---------------------------------------------------------------------------------------------


def test_the_connection_waited_for_longest_is_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all places are taken, whoever keeps the server waiting the longest makes room; who is served stays; where
    all are served, newcomers are turned away."""
    monkeypatch.setattr(uvicorn_server, "MOST_CONNECTIONS", 3)
    monkeypatch.setattr(protocol, "HEAD_S", 60)

    async def story() -> None:
        async with served() as server:
            server.app.gate.clear()
            busy = await server.connect()
            busy.send(GET)
            await until(lambda: server.app.asked, "it is asked")
            waiting = [await server.connect(), await server.connect()]
            waiting[0].send(b"POST / HTTP/1.1\r\n")
            newcomer = await server.connect()
            newcomer.send(GET)
            assert await waiting[0].rest() == b""
            await until(lambda: len(server.app.asked) == 2, "the newcomer is served")
            last = await server.connect()
            last.send(GET)
            assert await waiting[1].rest() == b""
            await until(lambda: len(server.app.asked) == 3, "all three are served")
            assert await (await server.connect()).rest() == b""
            server.app.gate.set()
            for client in (busy, newcomer, last):
                assert (await client.answer())[0] == 200
            after = await server.connect()
            after.send(GET)
            assert (await after.answer())[0] == 200

    asyncio.run(story())


def test_asked_as_it_lost_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client had sent when it made room is not done: nobody would hear of it."""
    monkeypatch.setattr(uvicorn_server, "MOST_CONNECTIONS", 1)

    async def story() -> None:
        async with served() as server:
            kept = await server.connect()
            kept.send(GET)
            assert (await kept.answer())[0] == 200
            kept.send(GET)
            with socket.socket() as newcomer:  # before the server has read it
                assert server.server._server._slots.enter(newcomer)
                assert await kept.rest() == b""
                server.server._server._slots.leave(newcomer)
            assert len(server.app.asked) == 1

    asyncio.run(story())


def test_a_closed_connection_takes_no_slot() -> None:
    """Who has left takes no place, in whatever state, and to leave twice changes nothing."""
    room = ConnectionSlots(2)
    sockets = [socket.socket() for _ in range(6)]
    for each in sockets:
        assert room.enter(each)
        room.serve(each)
        room.wait_for(each)
        room.serve(each)
        room.leave(each)
        room.leave(each)
        room.serve(each)
        room.wait_for(each)
    assert room.enter(sockets[0])
    assert room.enter(sockets[1])
    for each in sockets:
        each.close()
