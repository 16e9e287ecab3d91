"""What a hub sends is read as the protocol has it, in whatever pieces it comes, and whatever bytes a subject has."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nats.errors import ProtocolError

from appliance.fleet.link.nats_parser import LONGEST_LINE, MessageParser

STREAM = (
    b'INFO {"server_id":"x"}\r\n'
    b"+OK\r\n"
    b"PING\r\n"
    b"MSG wga.hb.a 1 3\r\na\r\n\r\n"
    b"MSG wga.rpc.a.b.open 22 _INBOX_b.x 0\r\n\r\n"
    b"HMSG _INBOX_b.x 3 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
    b"HMSG wga.led.a.sync 4 _R_.x 12 14\r\nNATS/1.0\r\n\r\nok\r\n"
    b"-ERR 'Permissions Violation for Publish to \"$KV.a\"'\r\n"
    b"PONG\r\n"
)
READ = [
    ("info", {"server_id": "x"}),
    ("ping",),
    ("message", 1, b"wga.hb.a", b"", b"a\r\n", b""),
    ("message", 22, b"wga.rpc.a.b.open", b"_INBOX_b.x", b"", b""),
    ("message", 3, b"_INBOX_b.x", b"", b"", b"NATS/1.0 503\r\n\r\n"),
    ("message", 4, b"wga.led.a.sync", b"_R_.x", b"ok", b"NATS/1.0\r\n\r\n"),
    ("error", "'permissions violation for publish to \"$kv.a\"'"),
    ("pong",),
]


class Reader:
    def __init__(self) -> None:
        self.read: list[tuple[Any, ...]] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self.read.append(("message", sid, subject, reply, data, headers))

    async def _process_err(self, err_msg: str) -> None:
        self.read.append(("error", err_msg))

    async def _process_ping(self) -> None:
        self.read.append(("ping",))

    async def _process_pong(self) -> None:
        self.read.append(("pong",))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.read.append(("info", info))


def read(*pieces: bytes) -> list[tuple[Any, ...]]:
    async def parse() -> list[tuple[Any, ...]]:
        reader = Reader()
        parser = MessageParser(reader)
        for piece in pieces:
            await parser.parse(piece)
        return reader.read

    return asyncio.run(parse())


def test_in_whatever_pieces() -> None:
    """At once, cut in two anywhere, and byte by byte."""
    assert read(STREAM) == READ
    assert read(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == READ
    for at in range(0, len(STREAM), 7):
        assert read(STREAM[:at], STREAM[at:]) == READ


@pytest.mark.parametrize("white", [b"\x0b", b"\x0c", b"\x00", b"\x1c", b"\x85", b"\xc2\xa0"])
def test_only_a_space_parts_fields(white: bytes) -> None:
    """What nats-py takes for another subscription's number is part of the subject."""
    ((_, sid, subject, reply, data, _),) = read(b"MSG wga.rpc.a.b.x" + white + b"7 2 1\r\nd\r\n")
    assert (sid, reply, data) == (2, b"", b"d")
    assert subject.decode().startswith("wga.rpc.a.b.x")


def test_what_is_not_utf8_is_replaced() -> None:
    ((_, _, subject, reply, _, _),) = read(b"MSG a.\xff 1 b.\xfe 0\r\n\r\n")
    assert (subject.decode(), reply.decode()) == ("a.?", "b.?")


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\r\n",
        b"MSG a 1\r\n",
        b"MSG a 1 b 2 3\r\n",
        b"MSG a x 3\r\n",
        b"MSG a 1 -3\r\n",
        b"HMSG a 1 5 3\r\n",
        b"HMSG a 1 3\r\n",
        b"INFO {\r\n",
        b"INFO 1\r\n",
        b"x" * (LONGEST_LINE + 1),
    ],
)
def test_what_is_not_of_the_protocol_is_refused(sent: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(sent)


def test_after_a_reset_nothing_is_left() -> None:
    async def parse() -> list[tuple[Any, ...]]:
        reader = Reader()
        parser = MessageParser(reader)
        await parser.parse(b"MSG a 1 10\r\nhalf")
        parser.reset()
        await parser.parse(b"PING\r\n")
        return reader.read

    assert asyncio.run(parse()) == [("ping",)]
