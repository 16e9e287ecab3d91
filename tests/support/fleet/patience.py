"""Asks an API as a client that tries again where it is answered 503.

Exits wait for each other for a few seconds, which on a machine with more work than processors may not be enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from tests.support.tunnel.http_api import Answer, Api


def opened(api: Api, token: str, region: str) -> dict[str, Any]:
    """POST /v1/sessions; the body of the 201."""
    answer = _answered(api, 201, "POST", "/v1/sessions", {"region": region}, token)
    session: dict[str, Any] = answer.body
    return session


def closed(api: Api, session: str, token: str) -> None:
    """DELETE /v1/sessions/{id}, until it answers 200."""
    _answered(api, 200, "DELETE", f"/v1/sessions/{session}", None, token)


def _answered(api: Api, wanted: int, method: str, path: str, body: object, token: str) -> Answer:
    def ask() -> Answer | None:
        answer = api.api(method, path, body, token)
        assert answer.status in (wanted, 503), answer
        return answer if answer.status == wanted else None

    answer = until(ask, f"{method} {path} answers {wanted}")
    assert answer is not None
    return answer
