"""Defines the public routes: the regions, health and readiness."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from litestar import Request, Response, get
from litestar.response import Redirect
from litestar.status_codes import HTTP_302_FOUND

from appliance.domain.errors import StoreUnavailable
from appliance.server.api.error_codes import ErrorCode
from appliance.server.api.errors import error_response
from appliance.server.api.openapi_failures import NOT_READY, TOO_MANY, failures
from appliance.server.api.openapi_operations import Documented
from appliance.server.api.schemas import Health, Region, RegionList

if TYPE_CHECKING:
    from litestar.types import ControllerRouterHandler

    from appliance.server.api.offered import Offered
    from appliance.server.api.rate_limits import RequestLimits
    from appliance.sessions.readiness import Readiness


# Paths on this host are not disclosed to clients; the log has them.
REFERENCE = "/schema"
STORE_FAULT = str(StoreUnavailable())
_PATH = re.compile(r"(?<![^\s(\"'=])/[^\s:;,)\"']+")


def public_routes(offered: Offered, readiness: Readiness, limits: RequestLimits) -> list[ControllerRouterHandler]:
    @get(
        "/v1/regions",
        operation_id="listRegions",
        operation_class=Documented,
        tags=["regions"],
        summary="List the regions",
        response_description="the regions",
        responses=failures(s429=TOO_MANY),
    )
    async def list_regions(request: Request[Any, Any, Any]) -> RegionList:
        """List the regions that have an active node."""
        limits.count_source(request.scope)
        return RegionList([Region(code, count) for code, count in offered.regions.regions()])

    @get(
        "/readyz",
        operation_id="getReadiness",
        operation_class=Documented,
        tags=["operations"],
        summary="Tell whether it is ready",
        response_description="both work",
        responses=failures(s503=NOT_READY),
    )
    async def readyz() -> Response[Health]:
        """Tell whether both the store and the tunnel work, and no other machine of its fleet is this one's copy."""
        fault = await readiness.fault() or offered.fault()
        if fault is not None:
            # Not the declared type: errors share one shape, and the document names it above.
            code = ErrorCode.STORE_UNAVAILABLE if fault.startswith(STORE_FAULT) else ErrorCode.NO_ACTIVE_NODES
            return error_response(HTTPStatus.SERVICE_UNAVAILABLE, code, _PATH.sub("(a file)", fault))  # type: ignore[return-value]
        return Response(Health("ok"))

    return [list_regions, _health(), readyz, _lead_to_reference(limits)]


def _health() -> ControllerRouterHandler:
    @get(
        "/healthz",
        operation_id="getHealth",
        operation_class=Documented,
        tags=["operations"],
        summary="Tell whether it serves",
        response_description="it serves",
    )
    async def healthz() -> Health:
        """Tell whether the process answers requests."""
        return Health("ok")

    return healthz


def _lead_to_reference(limits: RequestLimits) -> ControllerRouterHandler:
    """Leads from paths that people try to the page that explains the API."""

    @get(["/", "/docs"], status_code=HTTP_302_FOUND, include_in_schema=False)
    async def lead_to_reference(request: Request[Any, Any, Any]) -> Redirect:
        limits.count_source(request.scope)
        return Redirect(REFERENCE, status_code=HTTP_302_FOUND)

    return lead_to_reference
