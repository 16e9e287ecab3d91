"""What the server overrides or reads of uvicorn and asyncio that neither promises to keep is still there."""

from __future__ import annotations

import asyncio
import inspect
from asyncio import sslproto
from typing import TYPE_CHECKING

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from appliance.server.http import uvicorn_server

if TYPE_CHECKING:
    from collections.abc import Iterator

PROTOCOL_METHODS = (
    *("connection_made", "data_received", "pause_writing", "resume_writing", "connection_lost"),
    *("on_response_complete", "timeout_keep_alive_handler", "send_400_response"),
    *("_should_upgrade", "_unset_keepalive_if_required"),
)
PROTOCOL_FIELDS = ("transport", "conn", "flow", "loop", "cycle", "server_state")
CYCLE_FIELDS = ("response_complete", "disconnected", "message_event")
SERVER_METHODS = ("capture_signals", "startup", "shutdown", "serve")
SERVER_FIELDS = ("config", "server_state", "started", "should_exit")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


async def application(scope: object, receive: object, send: object) -> None: ...


def config() -> uvicorn.Config:
    config = uvicorn.Config(application, log_config=None, ws="none", lifespan="off")
    config.load()
    return config


@pytest.mark.parametrize("name", PROTOCOL_METHODS)
def test_protocol_method(name: str) -> None:
    assert inspect.isfunction(inspect.getattr_static(H11Protocol, name))


def test_protocol_fields(loop: asyncio.AbstractEventLoop) -> None:
    settings = config()
    state = uvicorn.Server(settings).server_state
    protocol = H11Protocol(config=settings, server_state=state, app_state={}, _loop=loop)
    assert [name for name in PROTOCOL_FIELDS if not hasattr(protocol, name)] == []
    assert hasattr(state, "default_headers")


def test_cycle_fields() -> None:
    code = inspect.getsource(RequestResponseCycle.__init__)
    assert [name for name in CYCLE_FIELDS if f"self.{name}" not in code] == []


def test_flow_field() -> None:
    assert "self.write_paused" in inspect.getsource(FlowControl.__init__)


@pytest.mark.parametrize("name", SERVER_METHODS)
def test_server_method(name: str) -> None:
    assert inspect.isfunction(inspect.getattr_static(uvicorn.Server, name))


def test_server_fields() -> None:
    """`servers` is set by the start that ours replaces, and read by the stop that it does not."""
    server = uvicorn.Server(config())
    assert [name for name in SERVER_FIELDS if not hasattr(server, name)] == []
    assert "self.servers" in inspect.getsource(uvicorn.Server.shutdown)


def test_size_of_tls_buffers() -> None:
    """asyncio makes each TLS connection's buffer of the size that the server sets for the whole process."""
    assert sslproto.SSLProtocol.max_size == 16 * 1024
    assert "bytearray(self.max_size)" in inspect.getsource(sslproto.SSLProtocol.__init__)
    assert uvicorn_server.sslproto is sslproto
