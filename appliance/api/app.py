"""The Litestar application, from built objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import HttpMethod, Litestar, Request

from appliance.api.documentation import openapi
from appliance.api.errors import handlers
from appliance.api.public_routes import public_routes
from appliance.api.session_routes import session_routes
from appliance.api.usage_routes import usage_routes

if TYPE_CHECKING:
    from collections.abc import Container

    from appliance.api.auth import Authenticator
    from appliance.api.request_limits import RequestLimits
    from appliance.clock import Clock
    from appliance.nodes import Nodes
    from appliance.quotas import Quotas
    from appliance.readiness import Readiness
    from appliance.sessions import Sessions
    from appliance.terms import Terms


def create_app(
    *,
    sessions: Sessions,
    quotas: Quotas,
    authenticate: Authenticator,
    limits: RequestLimits,
    nodes: Nodes,
    readiness: Readiness,
    own_keys: Container[bytes],
    terms: Terms,
    clock: Clock,
    max_body: int,
) -> Litestar:
    """`max_body` in bytes; a larger one is answered 413."""

    async def count_options(request: Request[Any, Any, Any]) -> None:
        """Every path answers OPTIONS, by itself, and asks for no token."""
        if request.method == HttpMethod.OPTIONS:
            limits.count_source(request.scope)

    return Litestar(
        [
            *session_routes(sessions, quotas, authenticate, own_keys, clock),
            *usage_routes(quotas, authenticate, terms),
            *public_routes(nodes, readiness, limits),
        ],
        before_request=count_options,
        exception_handlers=handlers(limits.count_source),  # type: ignore[arg-type]  # they take the exceptions they are listed for
        request_max_body_size=max_body,
        openapi_config=openapi(limits.count_source),
        logging_config=None,
    )
