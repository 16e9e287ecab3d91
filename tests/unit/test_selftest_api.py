"""The self-test's way to the API: every listener that can be configured."""

from __future__ import annotations

import json
import re
import socket
import ssl
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from appliance.client.api.http import Answer
from appliance.config.load import parse_settings
from appliance.config.value_types import HostPort, UnixPath
from appliance.domain.errors import HostError
from appliance.ops.selftest.api_client import LocalApi
from tests.support.certificates import self_signed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.config.load import ApiSettings

EVERYWHERE = "0.0.0.0"  # noqa: S104 (as it is configured; the test listens on loopback)
DEFAULTS = parse_settings("", {}, "host").api


class Mirror(BaseHTTPRequestHandler):
    """Answers 201 with what it was asked."""

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        told = {"path": self.path, "token": self.headers["Authorization"], "body": json.loads(content)}
        answer = json.dumps(told).encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self) -> None:
        self.send_response(503)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"busy")

    def address_string(self) -> str:
        return "somebody"  # a Unix socket's peer has no address

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def folder() -> Iterator[Path]:
    """pytest's own has a path too long for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="api-") as path:
        yield Path(path)


@pytest.fixture
def certificate(folder: Path) -> tuple[Path, Path]:
    """Made out to a name that is not where it is dialled, as an operator's is."""
    return self_signed(folder, "exit.example")


@contextmanager
def answering(listener: socket.socket, tls: tuple[Path, Path] | None = None) -> Iterator[None]:
    server = HTTPServer(("127.0.0.1", 0), Mirror, bind_and_activate=False)
    server.socket.close()
    listener.listen()
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        listener = context.wrap_socket(listener, server_side=True)
    server.socket = listener
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def tcp(shown: str = "127.0.0.1") -> tuple[socket.socket, ApiSettings]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener, replace(DEFAULTS, listen=(HostPort(shown, listener.getsockname()[1]),))


def unix(folder: Path) -> tuple[socket.socket, ApiSettings]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "api"))
    return listener, replace(DEFAULTS, listen=(UnixPath(folder / "api"),))


@pytest.mark.parametrize("where", ["tcp", "everywhere", "unix"])
@pytest.mark.parametrize("secure", [False, True])
def test_a_request_arrives_over_every_kind_of_listener(
    where: str, secure: bool, folder: Path, certificate: tuple[Path, Path]
) -> None:
    """A request arrives as it was made, and the answer comes back: TCP or Unix socket, with TLS or without."""
    listener, settings = unix(folder) if where == "unix" else tcp(EVERYWHERE if where == "everywhere" else "127.0.0.1")
    if secure:
        settings = replace(settings, tls_cert=certificate[0], tls_key=certificate[1])
    with answering(listener, certificate if secure else None):
        answer = LocalApi(settings).ask("POST", "/v1/sessions", "secret", {"region": "fsn"})
    assert answer.status == 201
    assert answer.body == {"path": "/v1/sessions", "token": "Bearer secret", "body": {"region": "fsn"}}


def test_another_certificate_is_refused(folder: Path, certificate: tuple[Path, Path]) -> None:
    """Who answers with another than the configured one is not the API."""
    listener, settings = tcp()
    settings = replace(settings, tls_cert=certificate[0], tls_key=certificate[1])
    other = self_signed(folder, "other.example")
    with answering(listener, other), pytest.raises(HostError, match="certificate verify failed"):
        LocalApi(settings).ask("GET", "/readyz")


def test_nobody_answers() -> None:
    """The error names the address."""
    listener, settings = tcp()
    listener.close()
    with pytest.raises(HostError, match=r"does not answer at http://127\.0\.0\.1:\d+: .*refused"):
        LocalApi(settings).ask("GET", "/readyz")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(503, {"error": "no active nodes"}), "the API answers 503: no active nodes"),
        (Answer(503, {}), "the API answers 503: no reason given"),
        (Answer(201, {"id": "ses_1"}), "the API's answer has no wg_config; is it this appliance that answers?"),
    ],
)
def test_an_unexpected_answer_is_an_error_in_the_apis_words(answer: Answer, said: str) -> None:
    """An answer that is not the one asked for is an error in the API's own words."""
    with pytest.raises(HostError, match=re.escape(said)):
        answer.require(201, {"id": str, "wg_config": str})


def test_an_answer_that_is_no_json() -> None:
    """It has its status, and nothing in it."""
    listener, settings = tcp()
    with answering(listener):
        assert LocalApi(settings).ask("GET", "/readyz") == Answer(503, {})
