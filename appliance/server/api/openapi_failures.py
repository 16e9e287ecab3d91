"""Documents failures: what each status means, and an example of each code."""

from __future__ import annotations

from typing import Any

from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Example

from appliance.server.api.error_codes import ErrorCode
from appliance.server.api.schemas import ErrorBody, QuotaErrorBody, RegionErrorBody

RESETS_AT = "2026-11-25T14:20:00Z"

# Meaning, the body's type, and an example of each code.
Failure = tuple[str, type[Any], list[dict[str, Any]]]


def failures(**bodies: Failure) -> dict[int, ResponseSpec]:
    """Returns the documented failures by status, given as s404 and the like."""
    return {
        int(name.removeprefix("s")): ResponseSpec(
            data_container=body,
            description=text,
            generate_examples=False,
            examples=[Example(id=example["code"], summary=example["code"], value=example) for example in examples],
        )
        for name, (text, body, examples) in bodies.items()
    }


def _error(text: str, **messages: str) -> Failure:
    """Returns a failure whose body has no further fields. `messages`: one for each code."""
    return text, ErrorBody, [{"error": message, "code": ErrorCode(code)} for code, message in messages.items()]


UNAUTHENTICATED = _error(
    "no token, or one that is unknown, expired or revoked",
    missing_token="missing token",  # noqa: S106 (no token)
    invalid_token="invalid token",  # noqa: S106 (no token)
)
KEY_IN_USE = _error("the key is one of this account's devices'", key_in_use="key in use")
NOT_FOUND = _error("no such session of this account", session_not_found="session not found")
NO_DEVICE = _error("no such device of this account, or it was removed", device_not_found="device not found")
NO_MORE_DEVICES = _error("the tier allows no more devices", device_limit="device limit reached")
NAME_TAKEN = _error("another device of the account has the name", device_name_taken="device name taken")
NAME_OR_KEY_TAKEN = _error(
    "another device of the account has the name, or a device or live session of it the key",
    device_name_taken="device name taken",
    key_in_use="key in use",
)
KEY_TAKEN = _error("a device or live session of the account has the key", key_in_use="key in use")
TOO_MANY = _error(
    "more requests than the tier allows per token, or this host per source without one",
    too_many_requests="too many requests",
)
UNAVAILABLE = _error("the exit cannot do this now", store_unavailable="store unavailable")
NOT_ENDED = _error(
    "the exit cannot do this now; a peer that was not removed in time is removed later",
    store_unavailable="store unavailable",
    peer_apply_failed="peer apply failed; node may be disconnected",
)
NOT_CHANGED = _error(
    "the exit cannot do this now; the device is as it was",
    store_unavailable="store unavailable",
    peer_apply_failed="peer apply failed; node may be disconnected",
)
BAD_PARAMETER = _error("a parameter is not valid", invalid_request="limit must be 1 to 200")
BAD_BODY = _error(
    "the body is not a JSON object, or a field is not valid",
    invalid_json="invalid json",
    invalid_request="region is required",
    bad_request="content-length and transfer-encoding exclude each other",
)
TOO_LARGE = _error("the body is too large", request_too_large="request entity too large")
NO_MORE_LIVE = _error("the tier's live sessions are all in use", live_session_limit="live session limit reached")
NOT_READY = _error(
    "the store or the tunnel does not work; the error is the reason",
    no_active_nodes="the WireGuard interface is gone",
    store_unavailable="store unavailable",
)
NO_NODE: Failure = (
    "no active node, no free address, or the exit did not accept the peer",
    RegionErrorBody,
    [
        {"error": "no active nodes", "code": ErrorCode.NO_ACTIVE_NODES},
        {
            "error": "no active node in region nowhere",
            "code": ErrorCode.REGION_UNAVAILABLE,
            "available": ["local"],
        },
        {"error": "subnet exhausted", "code": ErrorCode.SUBNET_EXHAUSTED},
        {"error": "peer apply failed; node may be disconnected", "code": ErrorCode.PEER_APPLY_FAILED},
        {"error": "store unavailable", "code": ErrorCode.STORE_UNAVAILABLE},
    ],
)
QUOTA_EXCEEDED: Failure = (
    "a usage window is used up; the body says until when",
    QuotaErrorBody,
    [
        {
            "error": "quota exceeded",
            "code": ErrorCode.QUOTA_EXCEEDED,
            "tier": "free",
            "bytes_used": 5_368_709_120,
            "bytes_limit": 5_368_709_120,
            "session_seconds": 125,
            "session_limit": 7200,
            "bytes_window_resets_at": RESETS_AT,
            "seconds_window_resets_at": RESETS_AT,
            "resets_at": RESETS_AT,
            "hint": f"try again after {RESETS_AT}, or ask the operator for a higher tier",
        }
    ],
)
