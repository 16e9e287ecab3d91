"""Serves /metrics: Prometheus text, on the operator's own listener."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litestar import Response, get
from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from appliance.server.api.errors import HANDLERS
from appliance.server.http.application import Application

if TYPE_CHECKING:
    from litestar import Litestar
    from prometheus_client import CollectorRegistry


def create_metrics_app(registry: CollectorRegistry) -> Litestar:
    ProcessCollector(registry=registry)  # memory, CPU time and open files, by their usual names

    @get("/metrics", sync_to_thread=False)
    def metrics() -> Response[bytes]:
        # In a header of its own: litestar adds a charset to a media type, and this has one.
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return Application(
        [metrics],
        exception_handlers=HANDLERS,  # type: ignore[arg-type]  # its handlers take the exceptions they are listed for
        openapi_config=None,
        logging_config=None,
    )
