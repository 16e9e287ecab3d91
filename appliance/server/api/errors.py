"""Maps the domain's errors to HTTP, in one table. Every error body is `{"error": <message>, "code": <word>}` and extra
fields."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from litestar import MediaType, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException

from appliance.domain.clock import rfc3339_end
from appliance.domain.errors import (
    ApplianceError,
    DeviceLimitReached,
    DeviceNameTaken,
    DeviceNotFound,
    InvalidJson,
    InvalidRequest,
    InvalidToken,
    KeyInUse,
    LiveSessionLimitReached,
    MissingToken,
    NoActiveNodeInRegion,
    NoActiveNodes,
    PeerApplyFailed,
    QuotaExceeded,
    SessionNotFound,
    StoreUnavailable,
    SubnetExhausted,
    TooManyRequests,
)
from appliance.server.api.error_codes import ErrorCode, code_of
from appliance.server.http.application import allow
from appliance.sessions.node import RETRY_MS

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar import Request
    from litestar.types import Scope

log = logging.getLogger(__name__)

# The first that fits counts.
STATUS: tuple[tuple[type[ApplianceError], HTTPStatus, ErrorCode], ...] = (
    (TooManyRequests, HTTPStatus.TOO_MANY_REQUESTS, ErrorCode.TOO_MANY_REQUESTS),
    (MissingToken, HTTPStatus.UNAUTHORIZED, ErrorCode.MISSING_TOKEN),
    (InvalidToken, HTTPStatus.UNAUTHORIZED, ErrorCode.INVALID_TOKEN),
    (InvalidJson, HTTPStatus.BAD_REQUEST, ErrorCode.INVALID_JSON),
    (InvalidRequest, HTTPStatus.BAD_REQUEST, ErrorCode.INVALID_REQUEST),
    (LiveSessionLimitReached, HTTPStatus.FORBIDDEN, ErrorCode.LIVE_SESSION_LIMIT),
    (DeviceLimitReached, HTTPStatus.FORBIDDEN, ErrorCode.DEVICE_LIMIT),
    (QuotaExceeded, HTTPStatus.PAYMENT_REQUIRED, ErrorCode.QUOTA_EXCEEDED),
    (SessionNotFound, HTTPStatus.NOT_FOUND, ErrorCode.SESSION_NOT_FOUND),
    (DeviceNotFound, HTTPStatus.NOT_FOUND, ErrorCode.DEVICE_NOT_FOUND),
    (DeviceNameTaken, HTTPStatus.CONFLICT, ErrorCode.DEVICE_NAME_TAKEN),
    (KeyInUse, HTTPStatus.CONFLICT, ErrorCode.KEY_IN_USE),
    (NoActiveNodes, HTTPStatus.SERVICE_UNAVAILABLE, ErrorCode.NO_ACTIVE_NODES),
    (NoActiveNodeInRegion, HTTPStatus.SERVICE_UNAVAILABLE, ErrorCode.REGION_UNAVAILABLE),
    (SubnetExhausted, HTTPStatus.SERVICE_UNAVAILABLE, ErrorCode.SUBNET_EXHAUSTED),
    (PeerApplyFailed, HTTPStatus.SERVICE_UNAVAILABLE, ErrorCode.PEER_APPLY_FAILED),
    (StoreUnavailable, HTTPStatus.SERVICE_UNAVAILABLE, ErrorCode.STORE_UNAVAILABLE),
)

HEADERS = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": str(RETRY_MS // 1000)},
}


def _extra(error: ApplianceError) -> dict[str, object]:
    """Returns the fields that an error's body has besides `error` and `code`."""
    if isinstance(error, NoActiveNodeInRegion):
        return {"available": error.available}
    if isinstance(error, QuotaExceeded):
        quota = error.quota
        resets_at = rfc3339_end(quota.resets_at)
        return {
            "tier": error.tier,
            "bytes_used": quota.bytes_used,
            "bytes_limit": quota.bytes_limit,
            "session_seconds": quota.seconds_used,
            "session_limit": quota.seconds_limit,
            "bytes_window_resets_at": rfc3339_end(quota.bytes_resets_at),
            "seconds_window_resets_at": rfc3339_end(quota.seconds_resets_at),
            "resets_at": resets_at,
            "hint": f"try again after {resets_at}, or ask the operator for a higher tier",
        }
    return {}


def _headers(error: ApplianceError) -> dict[str, str]:
    return {"Retry-After": str(error.retry_after)} if isinstance(error, TooManyRequests) else {}


def error_response(
    status: HTTPStatus,
    code: ErrorCode,
    message: str,
    *,
    headers: dict[str, str] | None = None,
    extra: dict[str, object] | None = None,
) -> Response[dict[str, object]]:
    return Response(
        {"error": message, "code": code, **(extra or {})},
        status_code=status,
        media_type=MediaType.JSON,
        headers={**HEADERS.get(status, {}), **(headers or {})},
    )


def from_domain(_: Request[Any, Any, Any], error: ApplianceError) -> Response[dict[str, object]]:
    for kind, status, code in STATUS:
        if isinstance(error, kind):
            return error_response(status, code, str(error), headers=_headers(error), extra=_extra(error))
    return internal(_, error)


def from_framework(request: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, object]]:
    """Answers unknown paths, methods not allowed and too large bodies: the status's phrase as an error body."""
    if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return internal(request, error)
    status = HTTPStatus(error.status_code)
    headers = {
        name: allow(value) if name.lower() == "allow" else value for name, value in (error.headers or {}).items()
    }
    return error_response(status, code_of(status), status.phrase.lower(), headers=headers)


def internal(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, object]]:
    """Answers 500. The cause is logged and not sent to the client."""
    # The route, not the path itself, which is text from the client.
    route = request.scope.get("path_template", "an unknown path")
    log.error("%s %s failed", request.method, route, exc_info=error)
    return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, ErrorCode.INTERNAL_ERROR, "internal error")


HANDLERS = {ApplianceError: from_domain, HTTPException: from_framework, Exception: internal}


def handlers(count_source: Callable[[Scope], None]) -> dict[type[Exception], Any]:
    """Returns HANDLERS; unrouted requests also count against their source, which may raise TooManyRequests."""

    def unrouted(request: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, object]]:
        try:
            count_source(request.scope)
        except TooManyRequests as many:
            return from_domain(request, many)
        return from_framework(request, error)

    return {**HANDLERS, NotFoundException: unrouted, MethodNotAllowedException: unrouted}
