"""What every refusal looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx


def refused(answer: httpx.Response, status: int, message: str | None = None, **extra: object) -> None:
    """The answer is this error in the shape of all errors, with the headers that belong to it."""
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert isinstance(body["error"], str)
    assert message is None or body == {"error": message, **extra}
    assert body.keys() == {"error", *extra}
    assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    if status in (429, 503):
        assert int(answer.headers["retry-after"]) > 0
