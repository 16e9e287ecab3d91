"""A small web server that stands for the internet: run as a script, it serves IPv4 and IPv6 on one port.

GET  /blob?bytes=N&seed=S[&slow_until=GATE]  N bytes that follow from S; trickles until the gate is open
POST /open?gate=GATE                         opens a gate, for good
PUT or POST /sink                            {"length": bytes received, "sha256": of them}
GET  /ip                                     the peer's address, as seen here
"""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 64 * 1024
TRICKLE_BYTES = 16 * 1024
TRICKLE_SECONDS = 0.1


def blob(nbytes: int, seed: str) -> Iterator[bytes]:
    """`nbytes` pseudo-random bytes in chunks, the same ones for the same seed."""
    for index, start in enumerate(range(0, nbytes, CHUNK)):
        yield hashlib.shake_128(f"{seed}:{index}".encode()).digest(min(CHUNK, nbytes - start))


def blob_sha256(nbytes: int, seed: str) -> str:
    digest = hashlib.sha256()
    for chunk in blob(nbytes, seed):
        digest.update(chunk)
    return digest.hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    gates: ClassVar[defaultdict[str, threading.Event]] = defaultdict(threading.Event)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path == "/ip":
            self._answer(self.client_address[0].removeprefix("::ffff:").encode())
        elif url.path == "/blob":
            self._send_blob(int(query["bytes"]), query["seed"], query.get("slow_until"))
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/open":
            self.gates[parse_qs(url.query)["gate"][0]].set()
            self._answer(b"open")
        elif url.path == "/sink":
            self._sink(int(self.headers["Content-Length"]))
        else:
            self.send_error(404)

    do_PUT = do_POST  # noqa: N815 - the name http.server calls

    def _send_blob(self, nbytes: int, seed: str, gate: str | None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(nbytes))
        self.end_headers()
        for chunk in blob(nbytes, seed):
            for start in range(0, len(chunk), TRICKLE_BYTES):
                if gate is not None:
                    self.gates[gate].wait(TRICKLE_SECONDS)
                self.wfile.write(chunk[start : start + TRICKLE_BYTES])

    def _sink(self, length: int) -> None:
        digest, left = hashlib.sha256(), length
        while left and (chunk := self.rfile.read(min(CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        self._answer(json.dumps({"length": length - left, "sha256": digest.hexdigest()}).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the overridden signature
        """Nothing: a test reads stdout only for the line that says the server listens."""


class WebServer(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 64

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is part of the tests; anything else is shown."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # socketserver's own union


if __name__ == "__main__":
    server = WebServer(("::", int(sys.argv[1])), Handler)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()
