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
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
    Tag,
)

from appliance import __version__
from appliance.network.wireguard.keys import TEXT_LENGTH
from appliance.server.api.error_codes import ErrorCode
from appliance.server.api.openapi_document import refined
from appliance.server.api.reference_page import ReferencePlugin
from appliance.server.api.schemas import (
    DNS_MOST,
    LIST_LIMIT,
    LIST_LIMIT_MOST,
    REGION,
    ErrorBody,
    QuotaErrorBody,
    RegionErrorBody,
)

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
durations seconds, sizes bytes, money millicents (1/1000 of a cent). HEAD is answered wherever GET is, without a body.

Every error is {"error": "<message>", "code": "<word>"}, with the extra fields that are named: the message is for
people, the code for programs. Beside those of each operation there are 404 not_found for an unknown path, 405
method_not_allowed, 500 internal_error, and, where a request is no HTTP that can be read, 400 bad_request, 408
request_timeout, 431 headers_too_large or 501 not_implemented, after which the connection is closed.

The calls below are for a shell that has the API's address in $API, such as https://vpn.example.org, and a token in
$TOKEN."""

TAGS = {
    "sessions": "tunnels of an account: opened, shown, ended",
    "usage": "what an account has used of its windows",
    "regions": "where there are exits",
    "operations": "whether the exit works",
}

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


def _session_request() -> Schema:
    text, boolean, null = OpenAPIType.STRING, OpenAPIType.BOOLEAN, OpenAPIType.NULL
    return Schema(
        title="SessionRequest",
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
                type=[boolean, null],  # no default: generators would make it required
                description="false leaves IPv6 out of wg_config, for clients on which it is disabled; left out: true",
                examples=[True],
            ),
            "dns": _dns(),
        },
    )


def _dns() -> Schema:
    address = Schema(type=OpenAPIType.STRING, examples=["9.9.9.9"])
    return Schema(
        one_of=[
            Schema(type=OpenAPIType.ARRAY, items=address, min_items=1, max_items=DNS_MOST),
            Schema(type=OpenAPIType.BOOLEAN, const=False),
            Schema(type=OpenAPIType.NULL),
        ],
        description="resolvers for the file's DNS line; false: no such line; left out or null: the operator's",
        examples=[["9.9.9.9", "2620:fe::fe"]],
    )


@dataclass
class CreateSession(Documented):
    """Documents the request body, which no handler signature can: it is JSON whatever its Content-Type."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.request_body = RequestBody(
            content={
                "application/json": OpenAPIMediaType(
                    schema=Reference(ref="#/components/schemas/SessionRequest"),
                    examples={
                        "the server makes the key pair": Example(value={"region": "local"}),
                        "own key": Example(value={"region": "local", "client_public_key": A_KEY}),
                        "resolvers": Example(value={"region": "local", "dns": ["9.9.9.9"]}),
                    },
                )
            },
            required=True,
        )
        created = (self.responses or {})["201"]
        if isinstance(created, OpenAPIResponse):
            created.content = (created.content or {}) | {
                "text/plain": OpenAPIMediaType(
                    schema=Schema(type=OpenAPIType.STRING, description="wg_config alone, with Accept: text/plain")
                )
            }
            created.headers = {
                SESSION_ID_HEADER: OpenAPIHeader(
                    description="the id, where the answer is the file alone",
                    schema=Schema(type=OpenAPIType.STRING, examples=[AN_ID]),
                )
            }


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


def documented(generated: dict[str, Any]) -> dict[str, Any]:
    """Returns the document as it is served."""
    return refined(generated, {"SessionRequest": _session_request().to_schema()})


class DocumentPlugin(JsonRenderPlugin):
    """Encodes the document once, so that requests for it do not delay others."""

    _encoded: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        if self._encoded is None:
            self._encoded = super().render(request, documented(openapi_schema))
        return self._encoded

    def receive_router(self, router: Router) -> None:
        """Removes the catch-all below /schema, which Litestar would answer with a page of its own."""
        router.routes = [route for route in router.routes if not route.path_parameters]


def openapi(count_source: Callable[[Scope], None]) -> OpenAPIConfig:
    return OpenAPIConfig(
        title="wg-appliance",
        version=__version__,  # generated clients are compared by it
        description=DESCRIPTION,
        path="/schema",
        use_handler_docstrings=True,
        # Litestar's own pages load scripts from other hosts.
        render_plugins=[DocumentPlugin(), ReferencePlugin(count_source, documented)],
        components=Components(
            security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")},
        ),
        tags=[Tag(name, description) for name, description in TAGS.items()],
    )
