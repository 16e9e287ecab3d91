"""An API that wishes its clients ill: run as a module, it serves IPv4 on one port until it is ended.

    python -m tests.support.tunnel.hostile_api PORT

What it answers is named by the first part of the path: `http://HOST:PORT/NAME` is the URL of the exit NAME. It prints a
line a request: `NAME METHOD rest-of-path`.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.support.client.hostile_files import ADDRESS, ENDPOINT, HOSTILE_FILES, KEEPALIVE, changed
from tests.support.client.scripted_api import CONFIG, OPENED, QUOTA_EXCEEDED, SESSION
from tests.support.tunnel.raw_answers import FIGURES, RAW, STALLING, TLS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAUSE_S = 0.3  # between two bytes, or lines, of what never ends
FOREVER_S = 120.0  # longer than any test waits
HEAD = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n"
CLIENT_IP, GATEWAY_IP, GATEWAY_IP6 = "198.51.100.18", "198.51.100.17", "2001:db8:1:1::1"

Body = dict[str, object]


def _file(old: str, new: str) -> Body:
    assert old in CONFIG
    return OPENED | {"wg_config": CONFIG.replace(old, new)}


# 201 with a file that is well formed, but not for this machine.
FOREIGN_FILES = {
    "own_address": _file(ADDRESS, f"Address = {CLIENT_IP}/32"),
    "gateways_address": _file(ADDRESS, f"Address = {GATEWAY_IP}/32"),
    "gateways_ipv6_address": _file(ADDRESS, f"Address = 10.101.0.2/32, {GATEWAY_IP6}/128"),
    "address_in_the_lan": _file(ADDRESS, "Address = 198.51.100.20/32"),
    "exits_address": _file(ADDRESS, "Address = 203.0.113.1/32"),
    "resolver_in_the_lan": _file("MTU = 1420\n", "MTU = 1420\nDNS = 198.51.100.20\n"),
    "mtu_without_ipv6": _file("MTU = 1420", "MTU = 1000"),
    "dials_this_machine": _file(ENDPOINT, f"Endpoint = {CLIENT_IP}:51820"),
    "dials_loopback": _file(ENDPOINT, "Endpoint = 127.0.0.9:51820"),
    "dials_localhost": _file(ENDPOINT, "Endpoint = localhost:51820"),
}
# 201 with a member that is none.
FOREIGN_MEMBERS: dict[str, Body] = {
    "long_id": OPENED | {"id": f"ses_{'x' * 5000}"},
    "id_of_a_path": OPENED | {"id": "ses_1/../../v1/other"},
    "id_of_lines": OPENED | {"id": "ses_1\r\nHost: other"},
    "id_with_nul": OPENED | {"id": "ses_\0"},
    "no_id": {name: value for name, value in OPENED.items() if name != "id"},
    "empty_id": OPENED | {"id": ""},
    "id_that_is_a_list": OPENED | {"id": ["ses_1"]},
    "public_ip_of_orders": OPENED | {"public_ip": "\x1b]0;x\a203.0.113.1"},
    "surrogates": OPENED | {"tier": "\ud800"},
    "ends_at_noon": OPENED | {"expires_at": "noon"},
    "no_end": {name: value for name, value in OPENED.items() if name != "expires_at"},
    "file_that_is_null": OPENED | {"wg_config": None},
    "file_of_a_megabyte": OPENED | {"wg_config": CONFIG + "#" * 900_000},
}
OTHERS: dict[str, tuple[int, Body, str]] = {
    "a_megabyte_of_reason": (400, {"error": "x" * 900_000}, ""),
    "long_quota": (402, QUOTA_EXCEEDED | {"hint": "x" * 4000}, ""),
    "huge_quota": (402, QUOTA_EXCEEDED | {"bytes_used": 10**400}, ""),
    "many_regions": (503, {"error": "no", "available": ["x" * 30] * 10_000}, ""),
    "elsewhere": (302, {}, "Location: http://127.0.0.1:1/v1/sessions\r\n"),
    "in_a_century": (429, {"error": "busy"}, f"Retry-After: {9 * 10**9}\r\n"),
    "switching": (101, {}, "Upgrade: x\r\n"),
}


def _answer(connection: socket.socket, status: int, body: object, more: str = "") -> None:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n{more}\r\n"
    connection.sendall(head.encode() + content)


def _endless(piece: bytes, begin: bytes = b"", pause_s: float = PAUSE_S) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        connection.sendall(begin)
        until = time.monotonic() + FOREVER_S
        while time.monotonic() < until:
            connection.sendall(piece)
            time.sleep(pause_s)

    return send


# What never comes to an end: only the client's deadline, or its user, ends it.
ENDLESS = {
    "silent": _endless(b""),
    "drips": _endless(b"x", HEAD + b"Content-Length: 1000000\r\n\r\n"),
    "drips_its_status_line": _endless(b"1", b"HTTP/1."),
    "drips_headers": _endless(b"X-More: x\r\n", HEAD),
    "drips_one_header": _endless(b"x", HEAD + b"X-More: "),
    "drips_chunks": _endless(b"1\r\nx\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),
    "drips_trailers": _endless(b"X: x\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"),
    "continues": _endless(b"HTTP/1.1 100 Continue\r\n\r\n"),
    **STALLING,
}
# What comes faster than it can be wanted, or is no HTTP.
FLOODS = {
    "flood_of_continues": _endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, pause_s=0),
    "flood_of_body": _endless(b"x" * 65536, HEAD + b"\r\n", pause_s=0),
    "flood_of_a_negative_chunk": _endless(b"x" * 65536, HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", pause_s=0),
    "flood_of_one_line": _endless(b"x" * 65536, HEAD + b"X: ", pause_s=0),
    "flood_of_trailers": _endless(
        b"X: x\r\n" * 1000, HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", pause_s=0
    ),
    "another_protocol": lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "no_json": lambda connection: connection.sendall(HEAD + b"Content-Length: 3\r\n\r\n\xff\xfe\xfd"),
    "deep_json": lambda connection: connection.sendall(HEAD + b"Content-Length: 500000\r\n\r\n" + b"[" * 500_000),
    "negative_length": lambda connection: connection.sendall(HEAD + b"Content-Length: -5\r\n\r\n{}"),
    "two_lengths": lambda connection: connection.sendall(HEAD + b"Content-Length: 2\r\nContent-Length: 9\r\n\r\n{}"),
    "compressed": lambda connection: connection.sendall(
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"
    ),
}
# 201 as it should be, and then something else: by what GET answers, then the second POST, then DELETE.
IDLE = SESSION | {"terminated_reason": "idle"}
LATER: dict[str, Body] = {
    "true": OPENED,
    "ends_by_dripping": OPENED,
    "status_drips": OPENED,
    "without_ipv6_address": _file(", fd65:7869:7400::2/128", ""),
    # What is asked for by a machine without IPv6.
    "without_ipv6": OPENED
    | {
        "wg_config": CONFIG.replace(", fd65:7869:7400::2/128", "").replace("0.0.0.0/0, ::/0", "0.0.0.0/0"),
    },
    "small_line": _file("MTU = 1420\n", ""),
    **dict.fromkeys(FIGURES, OPENED),
    "always_idle": OPENED,
    "other_keepalive": _file(KEEPALIVE, "PersistentKeepalive = 7\n"),
    "keepalive_off": _file(KEEPALIVE, "PersistentKeepalive = 0\n"),
    "dead_end": _file(ENDPOINT, "Endpoint = 203.0.113.9:9"),
    **{
        f"opens_again_{name}": OPENED
        for name in ("narrow", "second_peer", "post_up", "gateways_address", "mtu_without_ipv6", "long_id", "no_ipv4")
    },
}


def _later(name: str, method: str, connection: socket.socket, asked: int) -> None:
    again = name.removeprefix("opens_again_")
    if method == "POST" and asked > 1 and again != name:
        _answer(connection, 201, FOREIGN_FILES.get(again) or FOREIGN_MEMBERS.get(again) or _hostile(again))
    elif method == "POST":
        _answer(connection, 201, LATER[name])
    elif method == "GET" and (again != name or name == "always_idle"):
        _answer(connection, 200, IDLE)
    elif method == "GET" and name in FIGURES:
        _answer(connection, 200, FIGURES[name])
    elif (method, name) in {("DELETE", "ends_by_dripping"), ("GET", "status_drips")}:
        ENDLESS["drips"](connection)
    else:
        _answer(connection, 200, SESSION)


def _hostile(name: str) -> Body:
    return OPENED | {"wg_config": changed(name)}


class _Server:
    def __init__(self, port: int) -> None:
        self._listeners = {socket.create_server(("", port + above), backlog=64): above for above in (0, *TLS)}
        self._asked: dict[str, int] = {}

    def serve(self) -> None:
        _say("ready")
        while True:
            for listener in select.select(list(self._listeners), [], [])[0]:
                connection, _ = listener.accept()
                above = self._listeners[listener]
                target = self._shake_hands if above else self._handle
                threading.Thread(target=target, args=(connection, above), daemon=True).start()

    def _shake_hands(self, connection: socket.socket, above: int) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            _say(f"tls_{above} ClientHello")
            TLS[above](connection)

    def _handle(self, connection: socket.socket, _: int) -> None:
        with connection, suppress(OSError):
            method, path = next(_heads(connection)).split(" ")[:2]
            _, name, rest = path.split("/", 2)
            _say(f"{name} {method} {rest}")
            self._respond(name, method, connection)

    def _respond(self, name: str, method: str, connection: socket.socket) -> None:
        self._asked[name] = self._asked.get(name, 0) + (method == "POST")
        if name in LATER:
            _later(name, method, connection, self._asked[name])
        elif name in ENDLESS or name in FLOODS:
            (ENDLESS | FLOODS)[name](connection)
        elif method == "POST" and name in RAW:
            RAW[name](connection)
        elif method != "POST":
            _answer(connection, 200, SESSION)
        elif name in OTHERS:
            status, body, more = OTHERS[name]
            _answer(connection, status, body, more)
        else:
            _answer(connection, 201, FOREIGN_FILES.get(name) or FOREIGN_MEMBERS.get(name) or _hostile(name))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _heads(connection: socket.socket) -> Iterator[str]:
    """The request, once all of it is here: a connection that is closed with bytes unread is reset."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(65536)
        if not more:
            raise ConnectionError("it has asked for nothing")
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    yield head.decode()


REFUSED = [*HOSTILE_FILES, *FOREIGN_FILES, *FOREIGN_MEMBERS, *OTHERS, *FLOODS, *RAW]

if __name__ == "__main__":
    _Server(int(sys.argv[1])).serve()
