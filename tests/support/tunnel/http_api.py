"""The exit's HTTP API, spoken to from the exit itself."""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.support import netns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.tunnel.namespace import Namespace

API = "http://127.0.0.1:8080"
SECONDS_AN_ANSWER = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; header names in lower case, the body parsed where it is JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any


class _ConnectionFrom(HTTPConnection):
    """A socket stays in the namespace in which it was made."""

    def __init__(self, space: str, url: str) -> None:
        super().__init__(urlsplit(url).netloc, timeout=SECONDS_AN_ANSWER)
        self._space = netns.Namespace(space)
        self._tls = _whichever_certificate() if url.startswith("https:") else None

    def connect(self) -> None:
        with self._space.entered():
            self.sock = socket.create_connection((self.host, self.port), SECONDS_AN_ANSWER)
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock)


def _whichever_certificate() -> ssl.SSLContext:
    """Whose certificate it is, is the matter of other tests."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Api:
    """The API that listens in `space` at `url`, of an exit in `region`."""

    def __init__(self, space: Namespace, region: str, url: str = API) -> None:
        self.space = space
        self.region = region
        self.url = url

    def api(self, method: str, path: str, json_body: object = None, token: str | None = None) -> Answer:
        """Asks from inside the namespace, without a program: tests ask many times, and may wait for the answer.

        Where no whole answer comes, the status is 0 and the body says why.
        """
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection = _ConnectionFrom(self.space.name, self.url)
        try:
            connection.request(method, path, None if json_body is None else json.dumps(json_body), headers)
            answer = connection.getresponse()
            body = answer.read().decode()
        except (OSError, HTTPException) as error:
            return Answer(status=0, headers={}, body=str(error))
        finally:
            connection.close()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        parsed = json.loads(body) if "json" in fields.get("content-type", "") else body
        return Answer(status=answer.status, headers=fields, body=parsed)

    def open(self, token: str, **body: object) -> dict[str, Any]:
        """POST /v1/sessions, which must answer 201; the answer's body."""
        answer = self.api("POST", "/v1/sessions", {"region": self.region} | body, token)
        assert answer.status == 201, answer
        opened: dict[str, Any] = answer.body
        return opened

    def session(self, session_id: str, token: str) -> dict[str, Any]:
        answer = self.api("GET", f"/v1/sessions/{session_id}", token=token)
        assert answer.status == 200, answer
        shown: dict[str, Any] = answer.body
        return shown

    def close(self, session_id: str, token: str) -> dict[str, Any]:
        """DELETE /v1/sessions/{id}, which must answer 200; the final figures."""
        answer = self.api("DELETE", f"/v1/sessions/{session_id}", token=token)
        assert answer.status == 200, answer
        final: dict[str, Any] = answer.body
        return final
