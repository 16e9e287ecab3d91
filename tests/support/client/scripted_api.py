"""An API on loopback that gives the answers of a script, and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections import defaultdict, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TOKEN = "wga_" + 48 * "0"
SERVER_KEY = "mFJAxTxVQFxZbOPlzwcXEZ7Ww6nxHIRvVSKjTyb2NEg="
CONFIG = f"""[Interface]
Address = 10.101.0.2/32, fd65:7869:7400::2/128
MTU = 1420

[Peer]
PublicKey = {SERVER_KEY}
Endpoint = 203.0.113.1:51820
AllowedIPs = 0.0.0.0/0, ::/0
PersistentKeepalive = 25
"""
OPENED = {
    "id": "ses_1",
    "public_ip": "203.0.113.1",
    "wg_config": CONFIG,
    "tier": "free",
    "expires_at": "2026-12-01T00:00:00Z",
}
SESSION = {
    "id": "ses_1",
    "tier": "free",
    "region": "fsn",
    "public_ip": "203.0.113.1",
    "bytes_in": 1024,
    "bytes_out": 2048,
    "seconds": 2490,
    "quota_bytes_used": 3072,
    "quota_bytes_limit": 4096,
    "quota_seconds_used": 60,
    "quota_seconds_limit": 7200,
}
QUOTA_EXCEEDED = {
    "error": "quota exceeded",
    "tier": "free",
    "bytes_used": 4 * 2**30,
    "bytes_limit": 4 * 2**30,
    "session_seconds": 90,
    "session_limit": 0,
    "bytes_window_resets_at": "2026-12-02T00:00:00Z",
    "seconds_window_resets_at": "2026-12-01T00:00:00Z",
    "resets_at": "2026-12-02T00:00:00Z",
    "hint": "try again after 2026-12-02T00:00:00Z, or ask the operator for a higher tier",
}


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    path: str
    token: str | None
    body: Any
    host: str | None = field(default=None, compare=False)


@dataclass
class ScriptedApi:
    """An answer that is not scripted is 404. The last one of a script is given again and again."""

    host: str = "127.0.0.1"
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    script: defaultdict[str, deque[tuple[int, Mapping[str, Any], Mapping[str, str]]]] = field(
        default_factory=lambda: defaultdict(deque)
    )

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def answers(self, request: str, status: int, body: Mapping[str, Any], **headers: str) -> None:
        """`request`: a method and a path."""
        self.script[request].append((status, body, {name.replace("_", "-"): value for name, value in headers.items()}))

    def take(self, request: str) -> tuple[int, Mapping[str, Any], Mapping[str, str]]:
        left = self.script[request]
        if not left:
            return 404, {"error": "not found"}, {}
        return left.popleft() if len(left) > 1 else left[0]


@contextmanager
def serving(tls: tuple[Path, Path] | None = None, host: str = "127.0.0.1") -> Iterator[ScriptedApi]:
    """`tls`: the files of a certificate and its key."""
    api = ScriptedApi(host)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            api.asked.append(Asked(self.command, self.path, self.headers["Authorization"], body, self.headers["Host"]))
            status, answer, headers = api.take(f"{self.command} {self.path}")
            content = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_DELETE = do_GET  # noqa: N815 (the names that http.server calls)

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def handle_error(self, *_: object) -> None:
            """A client that breaks off is what some tests are about."""

    server = Server((host, 0), Handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        # The handshake in the connection's own thread, not in the one that accepts.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    api.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def unused_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
