"""What is no request, or could be read in two ways: refused in the shape of all errors, and the connection closed."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, cast

import pytest

from appliance.api.connection import LARGEST_HEAD
from appliance.api.framing import Unambiguous
from appliance.api.web import HEADERS
from tests.api.served import Echo, served

if TYPE_CHECKING:
    from litestar.types import ASGIApp

POST = b"POST /a HTTP/1.1\r\nHost: exit.test\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: exit.test\r\n\r\n"

REFUSED = {
    "nonsense": (400, b"\x00\x01\x02\r\n\r\n"),
    "TLS to a plain port": (400, bytes.fromhex("160301020001") + b"\0" * 40 + b"\r\n\r\n"),
    "no version": (400, b"GET /\r\n\r\n"),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    "a space in the target": (400, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a control character in a header": (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
    "a space before the colon": (400, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n"),
    "a header without a colon": (400, b"GET / HTTP/1.1\r\nHost: a\r\nhello\r\n\r\n"),
    "a large target": (431, b"GET /" + b"a" * 2 * LARGEST_HEAD + b" HTTP/1.1\r\n"),
    "a large header": (431, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 2 * LARGEST_HEAD),
    "many headers": (431, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * LARGEST_HEAD),
    "blank lines": (400, b"\r\n" * LARGEST_HEAD),
    "length and chunks": (400, POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN),
    "chunks and length": (400, POST + b"Transfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\n" + HIDDEN),
    "two lengths": (400, POST + b"Content-Length: 0\r\nContent-Length: 50\r\n\r\n" + HIDDEN),
    "two lengths in one": (400, POST + b"Content-Length: 0, 50\r\n\r\n" + HIDDEN),
    "a signed length": (400, POST + b"Content-Length: +0\r\n\r\n" + HIDDEN),
    "a negative length": (400, POST + b"Content-Length: -1\r\n\r\n" + HIDDEN),
    "a hexadecimal length": (400, POST + b"Content-Length: 0x10\r\n\r\n" + HIDDEN),
    "a huge length": (400, POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n" + HIDDEN),
    "chunked twice": (501, POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + HIDDEN),
    "chunked and more": (501, POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN),
    "chunked in two headers": (
        501,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    ),
    "a misspelt encoding": (501, POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN),
    "a hidden tab": (400, POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN),
    "no chunk size": (400, CHUNKED + b"\r\n\r\n" + HIDDEN),
    "a chunk size that is none": (400, CHUNKED + b"xyz\r\n\r\n" + HIDDEN),
    "a signed chunk size": (400, CHUNKED + b"+1\r\nx\r\n0\r\n\r\n" + HIDDEN),
    "a prefixed chunk size": (400, CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n" + HIDDEN),
    "a huge chunk size": (400, CHUNKED + b"f" * 30 + b"\r\nx\r\n0\r\n\r\n" + HIDDEN),
    "a chunk longer than it says": (400, CHUNKED + b"1\r\nxyz\r\n0\r\n\r\n" + HIDDEN),
    "an endless chunk extension": (431, CHUNKED + b"1;" + b"a" * 2 * LARGEST_HEAD),
    "endless trailers": (431, CHUNKED + b"0\r\n" + b"a: b\r\n" * LARGEST_HEAD),
}


@pytest.mark.parametrize(("status", "sent"), REFUSED.values(), ids=REFUSED)
def test_refused(status: int, sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The error says nothing of the server, the hidden request is never seen, and the log of nobody grows by it."""

    async def story() -> None:
        echo = Echo()
        echo.gate.set()
        async with served(app=cast("ASGIApp", Unambiguous(echo))) as server:
            client = await server.connect()
            client.send(sent)
            found, headers, body = await client.answer()
            assert found == status, body
            assert json.loads(body).keys() == {"error"}
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
    "an unknown method": (b"BREW /a HTTP/1.1\r\nHost: exit.test\r\n\r\n", ["BREW /a 0"]),
}


@pytest.mark.parametrize(("sent", "answers"), READ.values(), ids=READ)
def test_read(sent: bytes, answers: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """What the standard leaves to the server is read in one way, however it is cut into pieces."""

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
