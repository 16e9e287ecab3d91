"""What is no request, or could be read in two ways: refused in the shape of all errors, and the connection closed."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, cast

import pytest

from appliance.server.http import protocol
from appliance.server.http.ambiguous_length import Unambiguous
from appliance.server.http.uvicorn_server import HEADERS
from tests.support.api.answers import code_of
from tests.support.api.exit_under_test import until
from tests.support.api.served import Echo, served
from tests.support.malformed import CHUNKED, HIDDEN, LARGEST_HEAD, POST, REFUSED, head_of

if TYPE_CHECKING:
    from litestar.types import ASGIApp


@pytest.mark.parametrize(("status", "sent"), REFUSED.values(), ids=REFUSED)
def test_a_malformed_request_is_refused_without_a_word_of_the_server(
    status: int, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The error says nothing of the server, the hidden request is never seen, and the log of nobody grows by it."""

    async def story() -> None:
        echo = Echo()
        echo.gate.set()
        async with served(app=cast("ASGIApp", Unambiguous(echo))) as server:
            client = await server.connect()
            client.send(sent)
            found, headers, body = await client.answer()
            assert found == status, body
            said = json.loads(body)
            assert said == {"error": said["error"], "code": code_of(found, said["error"])}
            assert headers.keys() == {
                *("date", "content-type", "content-length", "connection"),
                *(name.lower() for name in HEADERS),
            }
            assert (headers["content-type"], headers["connection"]) == ("application/json", "close")
            assert await client.rest() == b""
            assert "GET /hidden" not in echo.asked

    with caplog.at_level(logging.INFO):
        asyncio.run(story())
    assert [r.getMessage() for r in caplog.records if r.name != "asyncio"] == []
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_a_head_that_waits_behind_another_is_no_larger() -> None:
    """Pipelined, so that it is read while the request before it is answered: that one is, and this one is refused."""

    async def story() -> None:
        echo = Echo()
        async with served(app=cast("ASGIApp", echo)) as server:
            client = await server.connect()
            client.send(HIDDEN)
            await until(lambda: echo.asked, "the first one is worked on")
            client.send(head_of(3 * LARGEST_HEAD))
            await client.writer.drain()
            await asyncio.sleep(0.1)
            echo.gate.set()
            assert (await client.answer())[::2] == (200, b"GET /hidden 0")
            assert (await client.answer())[0] == 431
            assert await client.rest() == b""
        assert echo.asked == ["GET /hidden"]

    asyncio.run(story())


READ = {
    "a folded header": (POST + b"X: a\r\n b\r\nContent-Length: 3\r\n\r\nabc", ["POST /a 3"]),
    "bare line feeds": (b"POST /a HTTP/1.1\nHost: exit.test\nContent-Length: 3\n\nabc", ["POST /a 3"]),
    "chunks": (CHUNKED + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n", ["POST /a 5"]),
    "the same length twice": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", ["POST /a 3"]),
    "pipelined": (POST + b"Content-Length: 3\r\n\r\nabc" + HIDDEN, ["POST /a 3", "GET /hidden 0"]),
    "an upgrade nobody offers": (
        b"GET /a HTTP/1.1\r\nHost: exit.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        ["GET /a 0"],
    ),
    "a head of the largest size": (head_of(LARGEST_HEAD), ["GET /a 0"]),
    "two of the largest size": (head_of(LARGEST_HEAD) * 2, ["GET /a 0"] * 2),
    "an unknown method": (b"BREW /a HTTP/1.1\r\nHost: exit.test\r\n\r\n", ["BREW /a 0"]),
}


@pytest.mark.parametrize(("sent", "answers"), READ.values(), ids=READ)
def test_an_odd_request_is_read_in_one_way(
    sent: bytes, answers: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the standard leaves to the server is read in one way, however it is cut into pieces."""
    monkeypatch.setattr(protocol, "HEAD_S", 600.0)  # thousands of pieces take a slow machine a while

    async def story(pieces: list[bytes]) -> None:
        async with served() as server:
            client = await server.connect()
            for piece in pieces:
                client.send(piece)
                await client.writer.drain()
                await asyncio.sleep(0)
            assert [(await client.answer())[2].decode() for _ in answers] == answers

    with caplog.at_level(logging.INFO):
        asyncio.run(story([sent]))
        asyncio.run(story([sent[n : n + 1] for n in range(len(sent))]))
    assert [r.getMessage() for r in caplog.records if r.name != "asyncio"] == []
