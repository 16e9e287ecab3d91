"""Names the kinds of errors for programs: stable words, one a kind, beside each error's message for people. Pure."""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus


class ErrorCode(StrEnum):
    INVALID_JSON = "invalid_json"
    INVALID_REQUEST = "invalid_request"
    MISSING_TOKEN = "missing_token"  # noqa: S105 (a word, not a secret)
    INVALID_TOKEN = "invalid_token"  # noqa: S105 (a word, not a secret)
    QUOTA_EXCEEDED = "quota_exceeded"
    LIVE_SESSION_LIMIT = "live_session_limit"
    DEVICE_LIMIT = "device_limit"
    SESSION_NOT_FOUND = "session_not_found"
    DEVICE_NOT_FOUND = "device_not_found"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TOO_LARGE = "request_too_large"
    BAD_REQUEST = "bad_request"
    REQUEST_TIMEOUT = "request_timeout"
    HEADERS_TOO_LARGE = "headers_too_large"
    NOT_IMPLEMENTED = "not_implemented"
    TOO_MANY_REQUESTS = "too_many_requests"
    DEVICE_NAME_TAKEN = "device_name_taken"
    KEY_IN_USE = "key_in_use"
    INTERNAL_ERROR = "internal_error"
    NO_ACTIVE_NODES = "no_active_nodes"
    REGION_UNAVAILABLE = "region_unavailable"
    SUBNET_EXHAUSTED = "subnet_exhausted"
    PEER_APPLY_FAILED = "peer_apply_failed"
    STORE_UNAVAILABLE = "store_unavailable"


_OF_STATUS = {
    HTTPStatus.NOT_FOUND: ErrorCode.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: ErrorCode.METHOD_NOT_ALLOWED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ErrorCode.REQUEST_TOO_LARGE,
    HTTPStatus.REQUEST_TIMEOUT: ErrorCode.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: ErrorCode.HEADERS_TOO_LARGE,
    HTTPStatus.NOT_IMPLEMENTED: ErrorCode.NOT_IMPLEMENTED,
}


def code_of(status: HTTPStatus) -> ErrorCode:
    """Returns the code of an error that is HTTP's and not the domain's: of a request that cannot be read or routed."""
    return _OF_STATUS.get(status, ErrorCode.BAD_REQUEST)
