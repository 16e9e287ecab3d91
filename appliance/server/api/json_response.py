"""Answers with JSON, without what Litestar's own class does for cookies, other encodings and background tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Response
from litestar.status_codes import HTTP_200_OK

if TYPE_CHECKING:
    from litestar import Request
    from litestar.types import Receive, Scope, Send


class JsonResponse(Response[Any]):
    def to_asgi_response(self, app: None, request: Request[Any, Any, Any], **given: Any) -> Any:  # type: ignore[override]  # of what is given, a Struct needs nothing
        if not isinstance(self.content, msgspec.Struct):
            return super().to_asgi_response(app, request, **given)
        return _Encoded(self.status_code or HTTP_200_OK, msgspec.json.encode(self.content))


class _Encoded:
    """Sends an answer: an ASGI application."""

    __slots__ = ("_body", "_status")

    def __init__(self, status: int, body: bytes) -> None:
        self._status = status
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI's)
        length = str(len(self._body)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})
