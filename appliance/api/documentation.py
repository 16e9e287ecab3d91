"""What the OpenAPI document says beyond what the handlers' types show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    Parameter,
    RequestBody,
    Schema,
    SecurityScheme,
)

from appliance.api.schemas import LIST_LIMIT, LIST_LIMIT_MOST, REGION, ErrorBody, RegionErrorBody
from appliance.wireguard.keys import TEXT_LENGTH

BEARER: list[dict[str, list[str]]] = [{"bearer": []}]


def failures(**bodies: tuple[str, type[Any]]) -> dict[int, ResponseSpec]:
    return {
        int(name.removeprefix("s")): ResponseSpec(data_container=body, description=text, generate_examples=False)
        for name, (text, body) in bodies.items()
    }


UNAUTHENTICATED = ("no token, or one that is unknown, expired or revoked", ErrorBody)
NOT_FOUND = ("no such session of this account", ErrorBody)
UNAVAILABLE = ("the exit cannot do this now; see Retry-After", ErrorBody)
NO_NODE = ("no active node, no free address, or the exit did not accept the peer; see Retry-After", RegionErrorBody)


@dataclass
class CreateSession(Operation):
    """The body is read as JSON whatever its Content-Type, which no handler signature can say."""

    def __post_init__(self) -> None:
        text, boolean, null = OpenAPIType.STRING, OpenAPIType.BOOLEAN, OpenAPIType.NULL
        schema = Schema(
            type=OpenAPIType.OBJECT,
            required=["region"],
            properties={
                "region": Schema(type=text, pattern=f"^{REGION.pattern}$", description="a code from GET /v1/regions"),
                "client_public_key": Schema(
                    type=[text, null],
                    min_length=TEXT_LENGTH,
                    max_length=TEXT_LENGTH,
                    description="WireGuard public key, base64; left out, the server makes the key pair",
                ),
                "ipv6": Schema(type=[boolean, null], default=True, description="false leaves IPv6 out of wg_config"),
            },
        )
        self.request_body = RequestBody(content={"application/json": OpenAPIMediaType(schema=schema)}, required=True)


@dataclass
class ListSessions(Operation):
    def __post_init__(self) -> None:
        self.parameters = [
            Parameter("live", "query", schema=Schema(type=OpenAPIType.BOOLEAN, default=False)),
            Parameter(
                "limit",
                "query",
                schema=Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=LIST_LIMIT_MOST, default=LIST_LIMIT),
            ),
            Parameter(
                "before", "query", schema=Schema(type=OpenAPIType.STRING), description="the last id of the page before"
            ),
        ]


@dataclass
class OneSession(Operation):
    """Litestar lists a 400 of its own shape for every path parameter; an id that cannot be one is 404 here."""

    def __post_init__(self) -> None:
        self.responses = {status: it for status, it in (self.responses or {}).items() if status != "400"}


def openapi(version: str) -> OpenAPIConfig:
    return OpenAPIConfig(
        title="wg-appliance",
        version=version,
        description="Sessions on a self-hosted WireGuard exit.",
        path="/schema",
        # The document alone: pages that show it load their scripts from elsewhere.
        render_plugins=[JsonRenderPlugin()],
        components=Components(security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}),
    )
