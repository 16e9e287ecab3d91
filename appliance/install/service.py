"""The service, through systemctl, and whether it works, through its own API."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import time
from typing import TYPE_CHECKING

from appliance.config import UnixPath
from appliance.errors import HostError
from appliance.install import host
from appliance.install.layout import SERVICE, TUNNEL_SERVICE

if TYPE_CHECKING:
    from appliance.settings import ApiSettings

POLL_S = 0.2
ANSWER_S = 5.0


def start() -> None:
    """Start it, or start it anew. Does not wait: who starts it looks whether it is ready."""
    host.run("systemctl", "reset-failed", SERVICE)
    host.run("systemctl", "restart", "--no-block", SERVICE)


def stop() -> None:
    host.run("systemctl", "stop", SERVICE)


def stop_all() -> None:
    for unit in (SERVICE, TUNNEL_SERVICE):
        if host.succeeds("systemctl", "cat", unit):
            host.run("systemctl", "stop", unit)


def reload_units() -> None:
    host.run("systemctl", "daemon-reload")


def wait_ready(api: ApiSettings, version: str, seconds: float) -> str | None:
    """None once the service that runs is of this version and ready; else why it is not, when the time is up."""
    deadline = time.monotonic() + seconds
    while (fault := _fault(api)) is not None:
        if time.monotonic() > deadline:
            return fault
        time.sleep(POLL_S)
    return None


def _fault(api: ApiSettings) -> str | None:
    state = _property("ActiveState")
    if state != "active":
        return f"the service is {state}"
    try:
        status, text = _get(api, "/readyz")
    except (OSError, http.client.HTTPException) as error:
        return f"{api.url} does not answer: {error}"
    return None if status == http.HTTPStatus.OK else f"/readyz answers {status}: {text}"


def _property(name: str) -> str:
    return host.run("systemctl", "show", "--value", f"--property={name}", SERVICE).strip()


class _Connection(http.client.HTTPConnection):
    """To where the API listens: an address, with TLS or without, or a Unix socket."""

    def __init__(self, api: ApiSettings) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._api = api

    def connect(self) -> None:
        where = self._api.listen
        if isinstance(where, UnixPath):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(ANSWER_S)
            self.sock.connect(str(where.path))
            return
        address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(where.host, where.host)  # noqa: S104 (from here)
        self.sock = socket.create_connection((address, where.port), ANSWER_S)
        if self._api.tls_cert:
            # The certificate is for the name that clients use.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.sock = context.wrap_socket(self.sock)


def _get(api: ApiSettings, path: str) -> tuple[int, str]:
    connection = _Connection(api)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace").strip()
    finally:
        connection.close()


def log_tail(lines: int = 10) -> str:
    """The last lines of the service's log."""
    command = ("journalctl", "--unit", SERVICE, "--lines", str(lines), "--no-pager", "--output", "cat")
    try:
        return host.run(*command).rstrip()
    except (HostError, subprocess.SubprocessError):
        return ""
