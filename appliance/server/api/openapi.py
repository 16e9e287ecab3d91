"""Extends the OpenAPI document beyond what the handlers' types show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import (
    Components,
    Example,
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    Parameter,
    RequestBody,
    Schema,
    SecurityScheme,
)

from appliance.network.wireguard.keys import TEXT_LENGTH
from appliance.server.api.error_codes import ErrorCode
from appliance.server.api.reference_page import ReferencePlugin
from appliance.server.api.schemas import LIST_LIMIT, LIST_LIMIT_MOST, REGION, ErrorBody, QuotaErrorBody, RegionErrorBody

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar import Request, Router
    from litestar.types import Scope

BEARER: list[dict[str, list[str]]] = [{"bearer": []}]
CANONICAL_KEY = "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"  # 32 bytes in base64: the last character has two unused bits
A_KEY = "mGbrFQRqhL2gEBYRAFHKIKNzQQxALqUD5ZUUbYfQ8UQ="
AN_ID = "ses_b0897940b5aa508cb4c22562"
SESSION_ID_HEADER = "Session-Id"
RESETS_AT = "2026-11-25T14:20:00Z"

DESCRIPTION = """\
Sessions on a self-hosted WireGuard exit.

Bodies are read as JSON whatever their Content-Type says, and unknown fields are ignored. Times are RFC 3339 in UTC,
durations seconds, sizes bytes, money millicents (1/1000 of a cent). Every error is {"error": "<message>"}, with the
extra fields that are named; beside those of each operation: 404 "not found" for an unknown path, 405 "method not
allowed", 500 "internal error", and, where a request is no HTTP that can be read, 400, 408, 431 or 501, after which the
connection is closed."""

Failure = tuple[str, type[Any], dict[str, Any]]


def failures(**bodies: Failure) -> dict[int, ResponseSpec]:
    """Returns the documented failures by status, given as s404 and the like: meaning, body's type, example."""
    return {
        int(name.removeprefix("s")): ResponseSpec(
            data_container=body, description=text, generate_examples=False, examples=[Example(value=example)]
        )
        for name, (text, body, example) in bodies.items()
    }


def _error(text: str, message: str, code: ErrorCode) -> Failure:
    return text, ErrorBody, {"error": message, "code": code}


UNAUTHENTICATED = _error(
    "no token, or one that is unknown, expired or revoked", "invalid token", ErrorCode.INVALID_TOKEN
)
NOT_FOUND = _error("no such session of this account", "session not found", ErrorCode.SESSION_NOT_FOUND)
TOO_MANY = _error(
    "more requests than the tier allows per token, or this host per source without one",
    "too many requests",
    ErrorCode.TOO_MANY_REQUESTS,
)
UNAVAILABLE = _error("the exit cannot do this now", "store unavailable", ErrorCode.STORE_UNAVAILABLE)
BAD_PARAMETER = _error("a parameter is not valid", "limit must be 1 to 200", ErrorCode.INVALID_REQUEST)
BAD_BODY = _error(
    "the body is not a JSON object, or a field is not valid", "region is required", ErrorCode.INVALID_REQUEST
)
TOO_LARGE = _error("the body is too large", "request entity too large", ErrorCode.REQUEST_TOO_LARGE)
NO_MORE_LIVE = _error(
    "the tier's live sessions are all in use", "live session limit reached", ErrorCode.LIVE_SESSION_LIMIT
)
NOT_READY = _error(
    "the store or the tunnel does not work; the error is the reason",
    "the tunnel does not answer",
    ErrorCode.NO_ACTIVE_NODES,
)
NO_NODE: Failure = (
    "no active node, no free address, or the exit did not accept the peer",
    RegionErrorBody,
    {
        "error": "no active node in region nowhere",
        "code": ErrorCode.REGION_UNAVAILABLE,
        "available": ["local"],
    },
)
QUOTA_EXCEEDED: Failure = (
    "a usage window is used up; the body says until when",
    QuotaErrorBody,
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
    },
)

RETRY_AFTER = {
    "Retry-After": OpenAPIHeader(description="in seconds", schema=Schema(type=OpenAPIType.INTEGER, minimum=1))
}
HEADERS = {
    "401": {"WWW-Authenticate": OpenAPIHeader(description="Bearer", schema=Schema(type=OpenAPIType.STRING))},
    "429": RETRY_AFTER,
    "503": RETRY_AFTER,
}


@dataclass
class Documented(Operation):
    """Documents the headers of failures. The handler documents a 400, as Litestar's own has another shape."""

    def __post_init__(self) -> None:
        for status, response in (self.responses or {}).items():
            if status in HEADERS:
                response.headers = dict(HEADERS[status])  # type: ignore[union-attr]  # none is a reference


def _create_session_schema() -> Schema:
    text, boolean, null = OpenAPIType.STRING, OpenAPIType.BOOLEAN, OpenAPIType.NULL
    return Schema(
        type=OpenAPIType.OBJECT,
        required=["region"],
        properties={
            "region": Schema(
                type=text,
                pattern=f"^{REGION.pattern}$",
                description="a code from GET /v1/regions",
                examples=["local"],
            ),
            "client_public_key": Schema(
                type=[text, null],
                min_length=TEXT_LENGTH,
                max_length=TEXT_LENGTH,
                pattern=CANONICAL_KEY,
                description="WireGuard public key, not of low order; left out, the server makes the key pair",
                examples=[A_KEY],
            ),
            "ipv6": Schema(
                type=[boolean, null],
                default=True,
                description="false leaves IPv6 out of wg_config, for clients on which it is disabled",
                examples=[True],
            ),
        },
    )


@dataclass
class CreateSession(Documented):
    """Documents the request body, which no handler signature can: it is JSON whatever its Content-Type."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.request_body = RequestBody(
            content={
                "application/json": OpenAPIMediaType(
                    schema=_create_session_schema(),
                    examples={
                        "the server makes the key pair": Example(value={"region": "local"}),
                        "own key": Example(value={"region": "local", "client_public_key": A_KEY}),
                    },
                )
            },
            required=True,
        )


@dataclass
class ListSessions(Documented):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.parameters = [
            Parameter(
                "live",
                "query",
                schema=Schema(type=OpenAPIType.BOOLEAN, default=False, examples=[True]),
                description="true: only live sessions",
            ),
            Parameter(
                "limit",
                "query",
                schema=Schema(
                    type=OpenAPIType.INTEGER, minimum=1, maximum=LIST_LIMIT_MOST, default=LIST_LIMIT, examples=[10]
                ),
                description="the largest number of sessions to return",
            ),
            Parameter(
                "before",
                "query",
                schema=Schema(type=OpenAPIType.STRING, pattern="^ses_[0-9a-f]{24}$", examples=[AN_ID]),
                description="the last id of the previous page",
            ),
        ]


@dataclass
class OneSession(Documented):
    """Documents an operation on one session, without Litestar's 400: a malformed id is answered 404."""

    def __post_init__(self) -> None:
        self.responses = {status: it for status, it in (self.responses or {}).items() if status != "400"}
        super().__post_init__()
        self.parameters = [
            Parameter(
                "session_id",
                "path",
                schema=Schema(type=OpenAPIType.STRING, examples=[AN_ID]),
                description="from POST /v1/sessions",
                required=True,
            )
        ]


class DocumentPlugin(JsonRenderPlugin):
    """Encodes the document once, so that requests for it do not delay others."""

    _encoded: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        if self._encoded is None:
            self._encoded = super().render(request, openapi_schema)
        return self._encoded

    def receive_router(self, router: Router) -> None:
        """Removes the catch-all below /schema, which Litestar would answer with a page of its own."""
        router.routes = [route for route in router.routes if not route.path_parameters]


def openapi(count_source: Callable[[Scope], None]) -> OpenAPIConfig:
    return OpenAPIConfig(
        title="wg-appliance",
        version="1",  # the API's; the program's version is not disclosed
        description=DESCRIPTION,
        path="/schema",
        use_handler_docstrings=True,
        # Litestar's own pages load scripts from other hosts.
        render_plugins=[DocumentPlugin(), ReferencePlugin(count_source)],
        components=Components(security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}),
    )
