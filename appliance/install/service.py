"""The service, through systemctl, and whether it works, through its own API."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from typing import TYPE_CHECKING

from appliance.config import UnixPath
from appliance.install import host
from appliance.install.layout import SERVICE

if TYPE_CHECKING:
    from appliance.settings import ApiSettings

POLL_S = 0.2
ANSWER_S = 5.0


def restart() -> str:
    """Start it, or start it anew, without waiting for what comes of it. The run that was before."""
    before = _property("InvocationID")
    host.run("systemctl", "reset-failed", SERVICE)
    host.run("systemctl", "restart", "--no-block", SERVICE)
    return before


def stop() -> None:
    host.run("systemctl", "stop", SERVICE)


def reload_units() -> None:
    host.run("systemctl", "daemon-reload")


def wait_ready(api: ApiSettings, seconds: float, after: str = "") -> str | None:
    """None once the service is ready, in a later run than `after`; else, when the time is up, what is amiss."""
    deadline = time.monotonic() + seconds
    while (fault := _fault(api, after)) is not None:
        if time.monotonic() > deadline:
            return fault
        time.sleep(POLL_S)
    return None


def _fault(api: ApiSettings, after: str) -> str | None:
    state = _property("ActiveState")
    if state != "active":
        return f"the service is {state}"
    if _property("InvocationID") == after:
        return "the service has not started anew"
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
