"""Extends the OpenAPI document beyond what the handlers' types show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme, Tag

from appliance import __version__
from appliance.server.api.openapi_devices import device_requests
from appliance.server.api.openapi_document import refined
from appliance.server.api.openapi_operations import session_request
from appliance.server.api.reference_page import ReferencePlugin

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar import Request, Router
    from litestar.types import Scope

DESCRIPTION = """\
Sessions and devices on a self-hosted WireGuard exit.

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
    "devices": "named peers of an account that stay: a session opens by itself at each one's handshake",
    "usage": "what an account has used of its windows",
    "regions": "where there are exits",
    "operations": "whether the exit works",
}


def documented(generated: dict[str, Any]) -> dict[str, Any]:
    """Returns the document as it is served."""
    schemas = [session_request(), *device_requests()]
    return refined(generated, {str(schema.title): schema.to_schema() for schema in schemas})


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
