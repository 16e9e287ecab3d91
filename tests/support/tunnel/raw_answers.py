"""Answers of a hostile exit in which the bytes are the point.

JSON that others take otherwise, look-alikes, lengths that lie, and TLS that does not come to an end.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from tests.support.client.scripted_api import CONFIG, OPENED, SESSION

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    Answering = Callable[[socket.socket], None]

HEAD = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n"
PAUSE_S = 0.3
FOREVER_S = 120.0


def whole(body: bytes, more: bytes = b"") -> Answering:
    return lambda connection: connection.sendall(HEAD + more + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def bare(content: bytes) -> Answering:
    return lambda connection: connection.sendall(content)


def opened(**changed: object) -> bytes:
    return json.dumps(OPENED | changed).encode()


def with_config(old: str, new: str) -> Answering:
    assert old in CONFIG
    return whole(opened(wg_config=CONFIG.replace(old, new)))


def with_text(old: bytes, new: bytes) -> Answering:
    text = opened()
    assert old in text
    return whole(text.replace(old, new))


def stalling(content: bytes) -> Answering:
    def answer(connection: socket.socket) -> None:
        connection.sendall(content)
        time.sleep(FOREVER_S)

    return answer


# Refused, with a line that is one.
RAW: Mapping[str, Answering] = {
    # JSON that others take otherwise.
    "second_id_wins": with_text(b'"id": "ses_1"', b'"id": "ses_1", "id": "ses_1/../x"'),
    "second_file_wins": with_text(b'"tier":', b'"wg_config": "[Interface]\\nPostUp = touch /tmp/hostile\\n", "tier":'),
    "not_a_number": with_text(b'"tier":', b'"later": NaN, "tier":'),
    "no_end_of_a_number": with_text(b'"tier":', b'"later": ' + b"9" * 5000 + b', "tier":'),
    "beyond_a_double": with_text(b'"tier":', b'"later": 1e999, "tier":'),
    "id_of_a_number": with_text(b'"ses_1"', b"1e0"),
    "true_for_a_file": whole(opened(wg_config=True)),
    "an_object_for_an_end": whole(opened(expires_at={"$date": "2026-12-01T00:00:00Z"})),
    "a_list_of_one": whole(b"[" + opened() + b"]"),
    "two_objects": whole(opened() + opened()),
    "utf_7": whole(b"+AHs-" + opened()),
    "not_utf_8": with_text(b"free", b"fr\xe9\xe9"),
    # Look-alikes and control characters.
    "wide_digits_of_an_address": with_config("10.101.0.2/32", "\uff11\uff10.101.0.2/32"),
    "arabic_digits_of_a_port": with_config(":51820", ":\u0665\u0661\u0668\u0662\u0660"),
    "cyrillic_key": with_config("Address", "\u0410ddress"),
    "dotless_endpoint": with_config("203.0.113.1:", "203\u30020\u3002113\u30021:"),
    "octal_address": with_config("10.101.0.2/32", "012.0145.0.2/32"),
    "carriage_returns": whole(opened(wg_config=CONFIG.replace("\n", "\r\n"))),
    "other_line_ends": whole(opened(wg_config=CONFIG.replace("\n", "\u2028"))),
    "vertical_tab": with_config("MTU = 1420\n", "MTU = 1420\x0bPostUp = touch /tmp/hostile\n"),
    "nul_in_the_file": with_config("MTU = 1420\n", "MTU = 1420\0\n"),
    "mark_before_the_file": whole(opened(wg_config=f"\ufeff{CONFIG}")),
    "wide_public_ip": whole(opened(public_ip="\uff12\uff10\uff13.0.113.1")),
    "end_with_a_line_end": whole(opened(expires_at="2026-12-01T00:00:00Z\n")),
    # Addresses.
    "mapped_endpoint": with_config("203.0.113.1:", "[::ffff:203.0.113.1]:"),
    "compatible_endpoint": with_config("203.0.113.1:", "[::203.0.113.1]:"),
    "scoped_endpoint": with_config("203.0.113.1:", "[fe80::1%eth0]:"),
    "multicast_endpoint": with_config("203.0.113.1:", "[ff02::1]:"),
    "dns_of_a_zone": with_config("MTU = 1420\n", "MTU = 1420\nDNS = 2001:db8::53%eth0\n"),
    "mapped_dns": with_config("MTU = 1420\n", "MTU = 1420\nDNS = ::ffff:9.9.9.9\n"),
    "resolver_is_the_client": with_config("MTU = 1420\n", "MTU = 1420\nDNS = 10.101.0.2\n"),
    "halves": with_config("0.0.0.0/0, ::/0", "0.0.0.0/1, 128.0.0.0/1, ::/1, 8000::/1"),
    "all_and_halves": with_config("0.0.0.0/0, ::/0", "0.0.0.0/0, ::/0, 0.0.0.0/1"),
    "host_bits": with_config("0.0.0.0/0, ::/0", "1.2.3.4/0, ::/0"),
    "least_mtu_and_one_less": with_config("MTU = 1420", "MTU = 575"),
    "greatest_mtu_and_one_more": with_config("MTU = 1420", "MTU = 9001"),
    "signed_mtu": with_config("MTU = 1420", "MTU = +1420"),
    "mtu_of_an_exponent": with_config("MTU = 1420", "MTU = 1e3"),
    "port_zero": with_config(":51820", ":0"),
    # HTTP that is not what it says.
    "longer_than_it_says": bare(HEAD + b"Content-Length: 20\r\n\r\n" + opened()),
    "shorter_than_it_says": bare(HEAD + b"Content-Length: 5000\r\n\r\n" + opened()),
    "length_of_words": bare(HEAD + b"Content-Length: many\r\n\r\n{}"),
    "huge_chunk": bare(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"F" * 16 + b"\r\n" + opened()),
    "chunk_of_no_size": bare(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + opened() + b"\r\n0\r\n\r\n"),
    "gzip_bomb": whole(b"\x1f\x8b\x08" + b"\0" * 900_000, b"Content-Encoding: gzip\r\n"),
    "to_a_file": bare(b"HTTP/1.1 301 Moved\r\nLocation: file:///etc/shadow\r\nContent-Length: 0\r\n\r\n"),
    "to_another_host": bare(
        b"HTTP/1.1 307 Temporary\r\nLocation: http://198.51.100.17:8080/true/v1/sessions\r\nContent-Length: 0\r\n\r\n"
    ),
    "status_zero": bare(b"HTTP/1.1 000 \r\n\r\n"),
    "status_of_four_digits": bare(b"HTTP/1.1 2010 Created\r\n\r\n"),
    "many_heads": bare(HEAD + b"X: x\r\n" * 500 + b"\r\n"),
}
# Ended by a deadline or by Ctrl-C alone.
STALLING: Mapping[str, Answering] = {
    "length_that_never_comes": stalling(HEAD + b"Content-Length: 5000\r\n\r\n" + opened()),
    "chunk_that_never_ends": stalling(HEAD + b"Transfer-Encoding: chunked\r\n\r\nfff\r\n" + opened()),
    "no_last_chunk": stalling(HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(opened()) + opened() + b"\r\n"),
}


def tls_drip(connection: socket.socket) -> None:
    """A ServerHello of 16 KiB, a byte at a time."""
    connection.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")
    until = time.monotonic() + FOREVER_S
    while time.monotonic() < until:
        connection.sendall(b"\x03")
        time.sleep(PAUSE_S)


# To a ClientHello, by the port that stands this much above the API's.
TLS: Mapping[int, Answering] = {
    1: stalling(b""),
    2: tls_drip,
    3: stalling(b"\x16\x03\x03"),
}
# What GET answers while the tunnel is up.
FIGURES: Mapping[str, object] = {
    "beyond_its_quota": SESSION | {"quota_bytes_used": 2**63 - 1, "quota_bytes_limit": 1, "quota_seconds_limit": 0},
    "long_currency": SESSION
    | {"cost_time_millicents": 2**63 - 1, "cost_bytes_millicents": 0, "cost_currency": "\ufdfa" * 4000},
    "less_than_nothing": SESSION | {"bytes_in": -1, "bytes_out": 1.5},
}
