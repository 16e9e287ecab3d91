"""Reads what a hub sends, in place of nats-py's own parser, whose reader dies of what another member may send.

nats-py takes any white space for the end of a subject, and subjects and headers for UTF-8. A hub passes on bytes as
they are: one message with a vertical tab or 0xFF in its subject would end the connections of all that get it.
https://docs.nats.io/reference/reference-protocols/nats-protocol: fields are parted by a space, lines end with CR LF.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

from nats.errors import ProtocolError
from nats.protocol.parser import Parser

END = b"\r\n"
LONGEST_LINE = 65_536


class ParsedBy(Protocol):
    """Is what the parser calls: nats-py's client."""

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None: ...
    async def _process_err(self, err_msg: str) -> None: ...
    async def _process_ping(self) -> None: ...
    async def _process_pong(self) -> None: ...
    async def _process_info(self, info: dict[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class _Announced:
    """Holds what the line before a message says of it; `size` includes that of the headers."""

    subject: bytes
    sid: int
    reply: bytes
    headers: int
    size: int


class MessageParser(Parser):
    """Is fed with what was received, in any pieces. It has nothing of its base but the type, which the client has."""

    def __init__(self, client: ParsedBy) -> None:
        self._client = client
        super().__init__()

    def reset(self) -> None:
        self._buffer = bytearray()
        self._announced: _Announced | None = None

    async def parse(self, data: bytes = b"") -> None:
        """Raises ProtocolError for what is not of the protocol."""
        self._buffer += data
        while await self._step():
            pass

    async def _step(self) -> bool:
        """Takes one line or message; tells whether there was a whole one."""
        if self._announced is not None:
            return await self._message(self._announced)
        end = self._buffer.find(END)
        if end < 0:
            if len(self._buffer) > LONGEST_LINE:
                raise ProtocolError
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + len(END)]
        await self._line(line)
        return True

    async def _message(self, announced: _Announced) -> bool:
        if len(self._buffer) < announced.size + len(END):
            return False
        headers = bytes(self._buffer[: announced.headers])
        data = bytes(self._buffer[announced.headers : announced.size])
        del self._buffer[: announced.size + len(END)]
        self._announced = None
        await self._client._process_msg(announced.sid, announced.subject, announced.reply, data, headers)
        return True

    async def _line(self, line: bytes) -> None:
        name, _, rest = line.partition(b" ")
        match name:
            case b"MSG" | b"HMSG":
                self._announced = _announced(rest.split(b" "), with_headers=name == b"HMSG")
            case b"PING":
                await self._client._process_ping()
            case b"PONG":
                await self._client._process_pong()
            case b"-ERR":
                await self._client._process_err(rest.decode(errors="replace").lower())
            case b"INFO":
                await self._client._process_info(_info(rest))
            case b"+OK":
                pass
            case _:
                raise ProtocolError


def _announced(fields: list[bytes], with_headers: bool) -> _Announced:
    """Reads: subject, number of the subscription, perhaps the reply subject, perhaps the headers' size, the size."""
    least = 4 if with_headers else 3
    if len(fields) not in (least, least + 1):
        raise ProtocolError
    reply = fields[2] if len(fields) > least else b""
    try:
        size, headers = int(fields[-1]), int(fields[-2]) if with_headers else 0
        sid = int(fields[1])
    except ValueError:
        raise ProtocolError from None
    if not 0 <= headers <= size:
        raise ProtocolError
    return _Announced(_text(fields[0]), sid, _text(reply), headers, size)


def _text(subject: bytes) -> bytes:
    """Replaces what is not UTF-8, as nats-py decodes it, each byte by one.

    A reply subject is sent back: a longer line than the hub takes from its sender would end this connection.
    """
    try:
        subject.decode()
    except UnicodeDecodeError:
        return subject.decode("ascii", "replace").replace("\ufffd", "?").encode()
    return subject


def _info(text: bytes) -> dict[str, Any]:
    try:
        info = json.loads(text)
    except ValueError:
        raise ProtocolError from None
    if not isinstance(info, dict):
        raise ProtocolError
    return info
