"""The running API over its configured listener: TCP or a Unix socket, with TLS or without."""

from __future__ import annotations

import json
import socket
import ssl
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Any

from appliance.config import UnixPath
from appliance.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from appliance.config import ApiSettings

ANSWER_S = 15.0
LONGEST_ANSWER = 1024 * 1024
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (what listens everywhere is reached here)


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is empty where the answer was no JSON object."""

    status: int
    body: Mapping[str, Any]

    def require(self, status: int, *fields: str) -> Mapping[str, Any]:
        """The body. Raises HostError with the API's own words where it is another answer."""
        if self.status != status:
            raise HostError(f"the API answers {self.status}: {self.body.get('error', 'no reason given')}")
        missing = [field for field in fields if field not in self.body]
        if missing:
            raise HostError(
                f"the API answers {status} without {', '.join(missing)}; is it this appliance that answers?"
            )
        return self.body


class Api:
    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings

    def ask(self, method: str, path: str, token: str | None = None, body: object = None) -> Answer:
        """Raises HostError where no answer comes."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            with closing(self._connection()) as connection:
                connection.request(method, path, None if body is None else json.dumps(body), headers)
                response = connection.getresponse()
                content = response.read(LONGEST_ANSWER)
        except (OSError, HTTPException) as error:
            reason = getattr(error, "strerror", None) or error
            raise HostError(f"the API does not answer at {self._settings.url}: {reason}") from error
        return Answer(response.status, _object(content))

    def _connection(self) -> HTTPConnection:
        where = self._settings.listen
        context = None if self._settings.tls_cert is None else _trusting(self._settings.tls_cert)
        if isinstance(where, UnixPath):
            return _UnixConnection(where.path, context)
        host = LOOPBACK.get(where.host, where.host)
        if context is None:
            return HTTPConnection(host, where.port, timeout=ANSWER_S)
        return HTTPSConnection(host, where.port, timeout=ANSWER_S, context=context)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path, context: ssl.SSLContext | None) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._path = path
        self._context = context

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_S)
        self.sock.connect(str(self._path))
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock)


def _trusting(certificate: Path) -> ssl.SSLContext:
    """Trusts the configured certificate, whoever signed it. It is made out to a name, and dialled by an address."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
