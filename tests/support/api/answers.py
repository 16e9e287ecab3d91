"""What every refusal looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

# The word for programs, by what is said to people: the status alone does not tell.
CODES = {
    "invalid json": "invalid_json",
    "missing token": "missing_token",
    "invalid token": "invalid_token",
    "quota exceeded": "quota_exceeded",
    "live session limit reached": "live_session_limit",
    "device limit reached": "device_limit",
    "session not found": "session_not_found",
    "device not found": "device_not_found",
    "device name taken": "device_name_taken",
    "key in use": "key_in_use",
    "not found": "not_found",
    "method not allowed": "method_not_allowed",
    "request entity too large": "request_too_large",
    "request timeout": "request_timeout",
    "request header fields too large": "headers_too_large",
    "not implemented": "not_implemented",
    "bad request": "bad_request",
    "content-length and transfer-encoding exclude each other": "bad_request",
    "too many requests": "too_many_requests",
    "internal error": "internal_error",
    "no active nodes": "no_active_nodes",
    "subnet exhausted": "subnet_exhausted",
    "peer apply failed; node may be disconnected": "peer_apply_failed",
    "store unavailable": "store_unavailable",
}


def code_of(status: int, message: str) -> str:
    """The code that belongs to an error."""
    if message.startswith("no active node in region "):
        return "region_unavailable"
    if status == 503 and message.startswith("store unavailable: "):
        return "store_unavailable"
    return CODES.get(message, {400: "invalid_request", 503: "no_active_nodes"}.get(status, "?"))


def refused(answer: httpx.Response, status: int, message: str | None = None, **extra: object) -> None:
    """The answer is this error in the shape of all errors, with the headers that belong to it."""
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert isinstance(body["error"], str)
    assert body.pop("code") == code_of(status, body["error"])
    assert message is None or body == {"error": message, **extra}
    assert body.keys() == {"error", *extra}
    assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    if status in (429, 503):
        assert int(answer.headers["retry-after"]) > 0
