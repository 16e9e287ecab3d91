"""Refuses requests that state their length twice: a proxy in front may read them differently (request smuggling)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from appliance.server.api.error_codes import ErrorCode
from appliance.server.api.errors import error_response

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send


class Unambiguous:
    """Wraps an ASGI application. RFC 9112, section 6.1: such a request may be refused, and its connection must be
    closed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = [name for name, _ in scope["headers"]]
        if b"transfer-encoding" in names and b"content-length" in names:
            refusal = error_response(
                HTTPStatus.BAD_REQUEST,
                ErrorCode.BAD_REQUEST,
                "content-length and transfer-encoding exclude each other",
                headers={"Connection": "close"},
            )
            answer = refusal.to_asgi_response(None, None)  # type: ignore[arg-type]  # nothing of it depends on the request
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)
