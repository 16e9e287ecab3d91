"""Reads bodies and answers OPTIONS, for the routes of all resources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import Request, Response, route
from litestar.exceptions import InternalServerException
from litestar.status_codes import HTTP_204_NO_CONTENT

from appliance.domain.errors import InvalidRequest
from appliance.server.api.schemas import parse_object

if TYPE_CHECKING:
    from litestar.types import ControllerRouterHandler


async def object_in(request: Request[Any, Any, Any], *, may_be_empty: bool = False) -> dict[str, object]:
    """Returns the body's JSON object; {} for no body if it `may_be_empty`. Raises InvalidJson or InvalidRequest."""
    try:
        body = await request.body()
    except InternalServerException as error:  # Litestar's error for a client that disconnects before the body's end
        raise InvalidRequest("the body is not whole") from error
    return {} if may_be_empty and not body else parse_object(body)


def options(path: str, *methods: str) -> ControllerRouterHandler:
    """Answers OPTIONS with all methods of a path; Litestar's own answer names those of one handler only."""

    @route(path, http_method=["OPTIONS"], status_code=HTTP_204_NO_CONTENT, include_in_schema=False)
    async def answer() -> Response[None]:
        return Response(None, headers={"Allow": ", ".join((*methods, "OPTIONS"))})

    return answer
