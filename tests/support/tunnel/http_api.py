"""The exit's HTTP API, spoken to from the exit itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.tunnel.client import CURL
from tests.support.tunnel.waiting import READY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.tunnel.namespace import Namespace

API = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; header names in lower case, the body parsed where it is JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any


class Api:
    """The API that listens in `space` at `url`, of an exit in `region`."""

    def __init__(self, space: Namespace, region: str, url: str = API) -> None:
        self.space = space
        self.region = region
        self.url = url

    def api(self, method: str, path: str, json_body: object = None, token: str | None = None) -> Answer:
        command = [*CURL, "--include", "--max-time", "60", "--request", method]
        if token is not None:
            command += ["--header", f"Authorization: Bearer {token}"]
        if json_body is not None:
            command += ["--data", json.dumps(json_body)]
        done = self.space.run(*command, self.url + path, check=False, timeout=READY_SECONDS)
        if done.returncode != 0:
            return Answer(status=0, headers={}, body=done.stderr)
        head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
        status, *fields = head.split("\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        parsed = json.loads(body) if "json" in headers.get("content-type", "") else body
        return Answer(status=int(status.split()[1]), headers=headers, body=parsed)

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
