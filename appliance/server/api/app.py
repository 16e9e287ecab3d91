"""Creates the Litestar application from the server's objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from litestar import HttpMethod, Request

from appliance.server.api.errors import handlers
from appliance.server.api.json_response import JsonResponse
from appliance.server.api.openapi import openapi
from appliance.server.api.routes.devices import device_routes
from appliance.server.api.routes.public import public_routes
from appliance.server.api.routes.sessions import session_routes
from appliance.server.api.routes.usage import usage_routes
from appliance.server.http.application import Application

if TYPE_CHECKING:
    from collections.abc import Container

    from litestar import Litestar

    from appliance.config.plans import Terms
    from appliance.domain.clock import Clock
    from appliance.metering.usage import Quotas
    from appliance.server.api.auth import Authenticator
    from appliance.server.api.offered import Offered
    from appliance.server.api.rate_limits import RequestLimits
    from appliance.sessions.devices.service import DeviceService
    from appliance.sessions.readiness import Readiness
    from appliance.sessions.service import SessionService


@dataclass(frozen=True, slots=True)
class Services:
    """Holds what the routes ask. `sessions`, `devices`: of this exit, whatever is offered."""

    sessions: SessionService
    devices: DeviceService
    offered: Offered
    quotas: Quotas
    readiness: Readiness
    terms: Terms


def create_app(
    services: Services,
    *,
    authenticate: Authenticator,
    limits: RequestLimits,
    own_keys: Container[bytes],
    clock: Clock,
    max_body: int,
) -> Litestar:
    """Creates the API's application.

    `own_keys`: public keys that no client may use. `max_body`: bytes; a larger body is answered 413.
    """

    async def count_options(request: Request[Any, Any, Any]) -> None:
        """Counts OPTIONS requests against their source: Litestar answers them on every path, without a token."""
        if request.method == HttpMethod.OPTIONS:
            limits.count_source(request.scope)

    return Application(
        [
            *session_routes(services.offered, authenticate, own_keys, clock),
            *device_routes(services.offered, authenticate, own_keys),
            *usage_routes(services.offered, authenticate, services.terms),
            *public_routes(services.offered, services.readiness, limits),
        ],
        before_request=count_options,
        response_class=JsonResponse,
        exception_handlers=handlers(limits.count_source),  # type: ignore[arg-type]  # they take the exceptions they are listed for
        request_max_body_size=max_body,
        openapi_config=openapi(limits.count_source),
        logging_config=None,
    )
