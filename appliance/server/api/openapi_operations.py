"""Documents operations beyond what the handlers' types show: bodies, parameters, headers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from litestar.openapi.spec import (
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
)

from appliance.network.wireguard.keys import TEXT_LENGTH
from appliance.server.api.schemas import DNS_MOST, LIST_LIMIT, LIST_LIMIT_MOST, REGION

if TYPE_CHECKING:
    Responses = dict[str, OpenAPIResponse | Reference]

BEARER: list[dict[str, list[str]]] = [{"bearer": []}]
CANONICAL_KEY = "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"  # 32 bytes in base64: the last character has two unused bits
A_KEY = "mGbrFQRqhL2gEBYRAFHKIKNzQQxALqUD5ZUUbYfQ8UQ="
AN_ID = "ses_b0897940b5aa508cb4c22562"
SESSION_ID_HEADER = "Session-Id"

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


def without_400(responses: Responses | None) -> Responses:
    return {status: it for status, it in (responses or {}).items() if status != "400"}


def page_parameters(of: str, pattern: str, example: str) -> list[Parameter]:
    return [
        Parameter(
            "limit",
            "query",
            schema=Schema(
                type=OpenAPIType.INTEGER, minimum=1, maximum=LIST_LIMIT_MOST, default=LIST_LIMIT, examples=[10]
            ),
            description=f"the largest number of {of} to return",
        ),
        Parameter(
            "before",
            "query",
            schema=Schema(type=OpenAPIType.STRING, pattern=pattern, examples=[example]),
            description="the last id of the previous page",
        ),
    ]


def body(schema: str, *, required: bool = True, **examples: dict[str, Any]) -> RequestBody:
    """Documents a body that no handler's signature can: it is JSON whatever its Content-Type."""
    return RequestBody(
        content={
            "application/json": OpenAPIMediaType(
                schema=Reference(ref=f"#/components/schemas/{schema}"),
                examples={name.replace("_", " "): Example(value=value) for name, value in examples.items()},
            )
        },
        required=required,
    )


def session_request() -> Schema:
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
            "client_public_key": client_public_key(),
            "ipv6": Schema(
                type=[boolean, null],  # no default: generators would make it required
                description="false leaves IPv6 out of wg_config, for clients on which it is disabled; left out: true",
                examples=[True],
            ),
            "dns": resolvers(),
        },
    )


def client_public_key() -> Schema:
    return Schema(
        type=[OpenAPIType.STRING, OpenAPIType.NULL],
        min_length=TEXT_LENGTH,
        max_length=TEXT_LENGTH,
        pattern=CANONICAL_KEY,
        description="WireGuard public key, not of low order; left out, the server makes the key pair",
        examples=[A_KEY],
    )


def resolvers() -> Schema:
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
    def __post_init__(self) -> None:
        super().__post_init__()
        self.request_body = body(
            "SessionRequest",
            the_server_makes_the_key_pair={"region": "local"},
            own_key={"region": "local", "client_public_key": A_KEY},
            resolvers={"region": "local", "dns": ["9.9.9.9"]},
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
            *page_parameters("sessions", "^ses_[0-9a-f]{24}$", AN_ID),
        ]


@dataclass
class OneSession(Documented):
    """Documents an operation on one session, without Litestar's 400: a malformed id is answered 404."""

    def __post_init__(self) -> None:
        self.responses = without_400(self.responses)
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
