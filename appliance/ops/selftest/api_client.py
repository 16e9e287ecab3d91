"""Connects to the running API through its configured listener: TCP or a Unix socket, with or without TLS."""

from __future__ import annotations

import socket
import ssl
from http.client import HTTP_PORT
from typing import TYPE_CHECKING, NamedTuple

from appliance.client.api import http
from appliance.client.api.dialer import UNIX, connect_unix
from appliance.client.api.wire import Where
from appliance.config.load import UnixPath

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.config.load import ApiSettings


class Reached(NamedTuple):
    """Holds how this host reaches its own API. `socket_path`: where it listens on a Unix socket, else ""."""

    host: str
    port: int
    socket_path: str

    def url(self, scheme: str) -> str:
        if self.socket_path:
            return f"{UNIX}{self.socket_path}"
        return f"{scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class LocalApi(http.Api):
    def __init__(self, settings: ApiSettings) -> None:
        where = reached(settings)

        def dial(seconds: float) -> socket.socket:
            if where.socket_path:
                return connect_unix(where.socket_path, seconds)
            return socket.create_connection((where.host, where.port), seconds)

        tls = None if settings.tls_cert is None else trusting(settings.tls_cert)
        super().__init__(Where(settings.url, where.host, where.port, dial, tls))


def reached(settings: ApiSettings) -> Reached:
    where = settings.listen[0]
    if isinstance(where, UnixPath):
        return Reached("localhost", HTTP_PORT, str(where.path))
    return Reached(where.dialled.host, where.port, "")


def trusting(certificate: Path) -> ssl.SSLContext:
    """Trusts the configured certificate, whatever its issuer. It names a host, and the connection uses an address."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
