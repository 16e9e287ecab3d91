"""Connects to the running API through its configured listener: TCP or a Unix socket, with or without TLS."""

from __future__ import annotations

import socket
import ssl
from http.client import HTTP_PORT
from typing import TYPE_CHECKING

from appliance.client.api import http
from appliance.client.api.dialer import connect_unix
from appliance.config.load import UnixPath

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.config.load import ApiSettings


class LocalApi(http.Api):
    def __init__(self, settings: ApiSettings) -> None:
        where = settings.listen[0]
        if isinstance(where, UnixPath):
            host, port = "localhost", HTTP_PORT
        else:
            host, port = where.dialled.host, where.port

        def dial(seconds: float) -> socket.socket:
            if isinstance(where, UnixPath):
                return connect_unix(str(where.path), seconds)
            return socket.create_connection((host, port), seconds)

        tls = None if settings.tls_cert is None else _trusting(settings.tls_cert)
        super().__init__(http.Where(settings.url, host, port, dial, tls))


def _trusting(certificate: Path) -> ssl.SSLContext:
    """Trusts the configured certificate, whatever its issuer. It names a host, and the connection uses an address."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
