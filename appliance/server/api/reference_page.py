"""Serves the OpenAPI document as a page for people, at /schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar.openapi.plugins import OpenAPIRenderPlugin

from appliance.server.console.pages import reference_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar import Request
    from litestar.types import Scope


class ReferencePlugin(OpenAPIRenderPlugin):
    """Serves the page. Unlike the document itself, it counts against its source."""

    def __init__(
        self, count_source: Callable[[Scope], None], documented: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        super().__init__(path="/")
        self._count_source = count_source
        self._documented = documented
        self._page: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        self._count_source(request.scope)
        if self._page is None:
            self._page = reference_page(self._documented(openapi_schema)).encode()
        return self._page
