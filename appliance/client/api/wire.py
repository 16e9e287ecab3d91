"""Exchanges one request and its answer on a connection of its own. Blocking; see deadline.py for how long."""

from __future__ import annotations

import io
import socket
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTP_PORT, HTTPS_PORT, HTTPConnection, HTTPResponse, IncompleteRead
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

LONGEST_ANSWER = 1024 * 1024  # bytes of a body
MOST_BYTES = 2 * LONGEST_ANSWER  # with heads, interim answers and the sizes of chunks


@dataclass(frozen=True, slots=True)
class Where:
    """Says where to send requests.

    `url`: for messages. `dial`: connects within the given seconds. `host`: the name that the certificate must match; an
    IPv6 address without its brackets.
    """

    url: str
    host: str
    port: int
    dial: Callable[[float], socket.socket]
    tls: ssl.SSLContext | None
    prefix: str = ""  # of every request path


class TooManyBytes(OSError):
    """Raised if an answer is longer than any that this API gives."""


@dataclass(frozen=True, slots=True)
class Received:
    status: int
    body: bytes
    retry_after: str | None


class Connection(HTTPConnection):
    """`seconds`: the longest wait for one operation of the socket."""

    def __init__(self, where: Where, seconds: float) -> None:
        super().__init__(where.host, where.port, timeout=seconds)
        self.response_class = _BoundedResponse
        self.default_port = HTTP_PORT if where.tls is None else HTTPS_PORT  # left out of the Host header
        self._where = where
        self._seconds = seconds
        self._abandoned = False

    def exchange(self, method: str, path: str, content: str | None, headers: Mapping[str, str]) -> Received:
        """Raises OSError, HTTPException or ValueError if there is no whole answer."""
        self.request(method, path, content, dict(headers))
        with self.getresponse() as response:
            received = response.read(LONGEST_ANSWER)
            if response.length:  # read(amount) does not report a truncated body
                raise IncompleteRead(received, response.length)
            return Received(response.status, received, response.getheader("Retry-After"))

    def connect(self) -> None:
        self.sock = self._where.dial(self._seconds)
        if self._abandoned:
            raise OSError("the request has been given up")
        if self._where.tls is not None:
            # Known to `break_off` before the handshake, in which the other end can take its time.
            self.sock = self._where.tls.wrap_socket(
                self.sock, server_hostname=self._where.host, do_handshake_on_connect=False
            )
            self.sock.do_handshake()

    def break_off(self) -> None:
        """Ends the exchange that another thread waits in."""
        self._abandoned = True
        sock = self.sock
        if sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not SSLSocket's, which the other thread is using


class _BoundedResponse(HTTPResponse):
    """Reads MOST_BYTES at most: http.client reads any number of interim answers, and to the end for some lengths."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Bounded(self.fp.detach()))


class _Bounded(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._left = MOST_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count = cast("int | None", self._raw.readinto(buffer))
        self._left -= count or 0
        if self._left < 0:
            raise TooManyBytes(f"it sends more than {MOST_BYTES >> 20} MiB for one answer")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
