"""Sends requests to an exit's API over HTTP: TCP or a Unix socket, with or without TLS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTP_PORT, HTTPS_PORT, HTTPConnection, HTTPException, IncompleteRead
from typing import TYPE_CHECKING, Any

from appliance.client.humanize import long_span
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

ANSWER_S = 15.0
LONGEST_ANSWER = 1024 * 1024

Fields = Mapping[str, type]  # the types of a JSON object's members, by name
NONE: Fields = {}
MOST = 2**63 - 1  # the largest number that the API sends


class NoAnswer(HostError):
    """Says that no answer arrived, or not all of it. `lasting`: a retry will not help."""

    def __init__(self, message: str, *, lasting: bool) -> None:
        super().__init__(message)
        self.lasting = lasting


@dataclass(frozen=True, slots=True)
class Answer:
    """Holds an answer of the API.

    `body`: empty if the answer was not a JSON object. `retry_after`: seconds, if sent.
    """

    status: int
    body: Mapping[str, Any]
    retry_after: int | None = None

    @property
    def error(self) -> str:
        """Returns the API's message for what is wrong."""
        return str(self.body.get("error", "no reason given"))

    @property
    def later(self) -> str:
        """Returns when to try again, in words."""
        return f"in {long_span(self.retry_after)}" if self.retry_after else "later"

    def require(self, status: int, fields: Fields = NONE, optional: Fields = NONE) -> Mapping[str, Any]:
        """Returns the body if `fields`, and those of `optional` that are present, have their types.

        Raises HostError for another status, with the API's own message; or for a missing or invalid member.
        """
        if self.status != status:
            advice = f"; try again {self.later}" if self.retry_after else ""
            raise HostError(f"the API answers {self.status}: {self.error}{advice}")
        missing = [f"no {name}" for name in fields if name not in self.body]
        invalid = [
            f"an invalid {name}"
            for name, kind in {**fields, **optional}.items()
            if name in self.body and not _is(kind, self.body[name])
        ]
        if missing or invalid:
            faults = ", ".join(missing + invalid)
            raise HostError(f"the API's answer has {faults}; is it this appliance that answers?")
        return self.body


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


class Api:
    def __init__(self, where: Where) -> None:
        self._where = where
        self.url = where.url

    def ask(
        self, method: str, path: str, token: str | None = None, body: object = None, seconds: float = ANSWER_S
    ) -> Answer:
        """Sends one request. `seconds`: the timeout of each socket operation.

        Raises NoAnswer if the API does not answer, or not completely.
        """
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        content = None if body is None else json.dumps(body)
        try:
            with closing(_Connection(self._where, seconds)) as connection:
                connection.request(method, self._where.prefix + path, content, headers)
                with connection.getresponse() as response:
                    received = response.read(LONGEST_ANSWER)
                    if response.length:  # read(amount) does not report a truncated body
                        raise IncompleteRead(received, response.length)
        except (OSError, HTTPException) as error:
            reason = getattr(error, "strerror", None) or error
            message = f"the API does not answer at {self.url}: {reason}"
            raise NoAnswer(message, lasting=_is_distrust(error)) from error
        return Answer(response.status, _object(received), _seconds(response.getheader("Retry-After")))


class _Connection(HTTPConnection):
    def __init__(self, where: Where, seconds: float) -> None:
        super().__init__(where.host, where.port, timeout=seconds)
        self.default_port = HTTP_PORT if where.tls is None else HTTPS_PORT  # left out of the Host header
        self._where = where
        self._seconds = seconds

    def connect(self) -> None:
        self.sock = self._where.dial(self._seconds)
        if self._where.tls is not None:
            self.sock = self._where.tls.wrap_socket(self.sock, server_hostname=self._where.host)


def _is_distrust(error: Exception) -> bool:
    import ssl

    return isinstance(error, ssl.SSLCertVerificationError)


def _is(kind: type, value: object) -> bool:
    """Tells whether `value` is of type `kind`. Booleans are not numbers here, and numbers are never negative."""
    if kind is int:
        return type(value) is int and 0 <= value <= MOST
    return isinstance(value, kind)


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _seconds(text: str | None) -> int | None:
    """Parses a Retry-After in seconds. The API does not send the date form (RFC 9110, section 10.2.3)."""
    return int(text[:18]) if text is not None and text.isascii() and text.isdigit() else None
