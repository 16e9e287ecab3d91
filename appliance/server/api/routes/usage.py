"""Defines the route /v1/usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import Request, get

from appliance.server.api.openapi_failures import TOO_MANY, UNAUTHENTICATED, UNAVAILABLE, failures
from appliance.server.api.openapi_operations import BEARER, Documented
from appliance.server.api.schemas import Usage

if TYPE_CHECKING:
    from litestar.types import ControllerRouterHandler

    from appliance.config.plans import Terms
    from appliance.server.api.auth import Authenticator
    from appliance.server.api.offered import Offered


def usage_routes(offered: Offered, authenticate: Authenticator, terms: Terms) -> list[ControllerRouterHandler]:
    @get(
        "/v1/usage",
        operation_id="getUsage",
        operation_class=Documented,
        tags=["usage"],
        summary="Show the account's usage",
        response_description="the windows",
        security=BEARER,
        responses=failures(s401=UNAUTHENTICATED, s429=TOO_MANY, s503=UNAVAILABLE),
    )
    async def get_usage(request: Request[Any, Any, Any]) -> Usage:
        """Show what the account has used of its current windows."""
        account = await authenticate(request)
        return Usage.of(account.tier, await offered.quotas.of_all(account), terms.tiers[account.tier].max_session)

    return [get_usage]
