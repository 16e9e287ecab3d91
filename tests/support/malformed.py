"""Bytes that are no HTTP request, or could be read as two different ones, and the status they get.

What is hidden in some is a second request, for whoever reads them otherwise than the server does.
"""

from __future__ import annotations

from appliance.server.http.protocol import LARGEST_HEAD

POST = b"POST /a HTTP/1.1\r\nHost: exit.test\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: exit.test\r\n\r\n"


def head_of(size: int) -> bytes:
    """A whole head of so many bytes."""
    start, end = b"GET /a HTTP/1.1\r\nHost: exit.test\r\nX: ", b"\r\n\r\n"
    return start + b"a" * (size - len(start) - len(end)) + end


REFUSED = {
    "nonsense": (400, b"\x00\x01\x02\r\n\r\n"),
    "TLS to a plain port": (400, bytes.fromhex("160301020001") + b"\0" * 40 + b"\r\n\r\n"),
    "no version": (400, b"GET /\r\n\r\n"),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    "a space in the target": (400, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a control character in a header": (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
    "a space before the colon": (400, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n"),
    "a header without a colon": (400, b"GET / HTTP/1.1\r\nHost: a\r\nhello\r\n\r\n"),
    "a large target": (431, b"GET /" + b"a" * 2 * LARGEST_HEAD + b" HTTP/1.1\r\n"),
    "a large header": (431, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 2 * LARGEST_HEAD),
    "a large head that is whole": (
        431,
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 4 * LARGEST_HEAD + b"\r\n\r\n" + HIDDEN,
    ),
    "a head that is whole and a byte too large": (431, head_of(LARGEST_HEAD + 1) + HIDDEN),
    "a head of nearly twice the limit": (431, head_of(2 * LARGEST_HEAD - 1)),
    "many headers": (431, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * LARGEST_HEAD),
    "blank lines": (400, b"\r\n" * LARGEST_HEAD),
    "length and chunks": (400, POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN),
    "chunks and length": (400, POST + b"Transfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\n" + HIDDEN),
    "two lengths": (400, POST + b"Content-Length: 0\r\nContent-Length: 50\r\n\r\n" + HIDDEN),
    "two lengths in one": (400, POST + b"Content-Length: 0, 50\r\n\r\n" + HIDDEN),
    "a signed length": (400, POST + b"Content-Length: +0\r\n\r\n" + HIDDEN),
    "a negative length": (400, POST + b"Content-Length: -1\r\n\r\n" + HIDDEN),
    "a hexadecimal length": (400, POST + b"Content-Length: 0x10\r\n\r\n" + HIDDEN),
    "a huge length": (400, POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n" + HIDDEN),
    "chunked twice": (501, POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + HIDDEN),
    "chunked and more": (501, POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN),
    "chunked in two headers": (
        501,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    ),
    "a misspelt encoding": (501, POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN),
    "a hidden tab": (400, POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN),
    "no chunk size": (400, CHUNKED + b"\r\n\r\n" + HIDDEN),
    "a chunk size that is none": (400, CHUNKED + b"xyz\r\n\r\n" + HIDDEN),
    "a signed chunk size": (400, CHUNKED + b"+1\r\nx\r\n0\r\n\r\n" + HIDDEN),
    "a prefixed chunk size": (400, CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n" + HIDDEN),
    "a huge chunk size": (400, CHUNKED + b"f" * 30 + b"\r\nx\r\n0\r\n\r\n" + HIDDEN),
    "a chunk longer than it says": (400, CHUNKED + b"1\r\nxyz\r\n0\r\n\r\n" + HIDDEN),
    "an endless chunk extension": (431, CHUNKED + b"1;" + b"a" * 2 * LARGEST_HEAD),
    "endless trailers": (431, CHUNKED + b"0\r\n" + b"a: b\r\n" * LARGEST_HEAD),
}
