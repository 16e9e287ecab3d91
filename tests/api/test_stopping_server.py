"""Clients that come while the web server stops."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from tests.support.api.served import served

if TYPE_CHECKING:
    import pytest


def test_a_client_that_comes_in_the_moment_of_the_stop(caplog: pytest.LogCaptureFixture) -> None:
    """The event loop has seen that it is there, and has not accepted it yet: it is let go, and nothing is logged."""

    async def story() -> None:
        with socket.socket() as client:
            async with served() as server:
                uvicorn_server: Any = server.server._server
                stop = uvicorn_server.shutdown

                async def shutdown(sockets: list[socket.socket]) -> None:
                    client.connect(("127.0.0.1", server.port))
                    await asyncio.sleep(0)
                    await stop(sockets)

                uvicorn_server.shutdown = shutdown

    asyncio.run(story())
    assert caplog.records == []
