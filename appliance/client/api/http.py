"""Sends requests to an exit's API over HTTP: TCP or a Unix socket, with or without TLS.

What answers may be hostile: a request has one deadline from the first look-up to the last byte, and a most of bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from appliance.client.api.deadline import within
from appliance.client.api.fault import explain
from appliance.client.api.wire import Connection
from appliance.client.humanize import long_span, shortened
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from appliance.client.api.wire import Received, Where

ANSWER_S = 15.0
LONGEST_TEXT = 4096  # characters of a member that is text

Fields = Mapping[str, type]  # the types of a JSON object's members, by name
NONE: Fields = {}
MOST = 2**63 - 1  # the largest number that the API sends


class Currency(str):
    """Marks a member that is a currency's code (ISO 4217), in small letters."""

    __slots__ = ()


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
        return shortened(str(self.body.get("error", "no reason given")))

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


class Api:
    def __init__(self, where: Where) -> None:
        self._where = where
        self.url = where.url

    def ask(
        self, method: str, path: str, token: str | None = None, body: object = None, seconds: float = ANSWER_S
    ) -> Answer:
        """Sends one request. `seconds`: from the first look-up of the name to the last byte of the answer.

        Raises NoAnswer if the API does not answer, or not completely.
        """
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        content = None if body is None else json.dumps(body)
        connection = Connection(self._where, seconds)

        def exchange() -> Received:
            with closing(connection):
                return connection.exchange(method, self._where.prefix + path, content, headers)

        try:
            received = within(seconds, exchange, connection.break_off)
        except (OSError, HTTPException, ValueError) as error:
            fault = explain(error, self.url)
            raise NoAnswer(f"the API does not answer at {self.url}: {fault.words}", lasting=fault.lasting) from error
        return Answer(received.status, _object(received.body), _seconds(received.retry_after))


def _is(kind: type, value: object) -> bool:
    """Tells whether `value` is of type `kind`. Booleans are not numbers here, numbers are never negative, and text is
    never longer than a file."""
    if kind is int:
        return type(value) is int and 0 <= value <= MOST
    if kind is Currency:
        return isinstance(value, str) and re.fullmatch(r"[a-z]{3}", value) is not None
    if kind is str:
        return isinstance(value, str) and len(value) <= LONGEST_TEXT
    return isinstance(value, kind)


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(content, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _finite(text: str) -> float:
    """Raises ValueError for what RFC 8259 has no form for: NaN, and numbers beyond a double's range."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no number of JSON")
    return number


def _seconds(text: str | None) -> int | None:
    """Parses a Retry-After in seconds. The API does not send the date form (RFC 9110, section 10.2.3)."""
    return int(text[:18]) if text is not None and text.isascii() and text.isdigit() else None
