"""Parses an API's URL and opens sockets to it that bypass the tunnel.

While all traffic goes into the tunnel, requests to the API would too, and would get no answer once the session has
ended. So its sockets carry the tunnel's fwmark, as the tunnel's own packets do, and its host name is resolved before
the tunnel comes up.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from appliance.client.api.http import Api
from appliance.client.api.wire import Where
from appliance.domain.errors import InvalidRequest

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    Address = tuple[socket.AddressFamily, tuple[object, ...]]

PORTS = {"http": 80, "https": 443}
UNIX = "unix:"
DIAL_S = 5.0  # connecting takes no longer to a host that is reachable
MOST_ADDRESSES = 8  # of a name that are tried


@dataclass(frozen=True, slots=True)
class Url:
    """Holds a parsed API URL. `path`: the socket's path for unix:, else the prefix of every request path."""

    text: str
    scheme: str
    host: str
    port: int
    path: str

    @property
    def sends_token_in_clear_text(self) -> bool:
        """Tells whether the token would cross the network in clear text."""
        return self.scheme == "http" and not _is_loopback(self.host)


def parse_url(text: str) -> Url:
    """Parses http://, https:// or unix:/path. Raises InvalidRequest for any other URL."""
    expected = f"{text}: must be https://HOST[:PORT], http://HOST[:PORT] or unix:/PATH"
    if text.startswith(f"{UNIX}/"):
        return Url(text, "unix", "localhost", 0, text.removeprefix(UNIX))
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidRequest(expected) from error
    if parts.scheme not in PORTS or not host or "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidRequest(expected)
    return Url(text.rstrip("/"), parts.scheme, host, port or PORTS[parts.scheme], parts.path.rstrip("/"))


def is_same_exit(one: str, other: str) -> bool:
    """Tells whether two URLs name the same exit, however each is written."""
    try:
        return replace(parse_url(one), text="") == replace(parse_url(other), text="")
    except InvalidRequest:
        return one == other


class Dialer:
    """Connects sockets to an API. `mark`: the fwmark of packets that bypass the tunnel; None without a tunnel."""

    def __init__(self, url: Url, mark: int | None = None, trusted: ssl.SSLContext | None = None) -> None:
        """`trusted`: whom to trust over TLS instead of the usual authorities."""
        self._url = url
        self._trusted = trusted
        self._known: Sequence[Address] = ()
        self.mark = mark

    def api(self) -> Api:
        import ssl

        tls = (self._trusted or ssl.create_default_context()) if self._url.scheme == "https" else None
        prefix = "" if self._url.scheme == "unix" else self._url.path
        port = self._url.port or PORTS["http"]
        return Api(Where(self._url.text, self._url.host, port, self.dial, tls, prefix))

    def dial(self, seconds: float) -> socket.socket:
        if self._url.scheme == "unix":
            return connect_unix(self._url.path, seconds)
        self._known = self._known or self._resolve()
        failed: OSError | None = None
        for family, address in self._known:
            try:
                return self._connect(family, address, seconds)
            except OSError as error:
                failed = error
        through = self._tunnel_on_the_way()
        if self.mark is None:
            self._known = ()  # the host may have moved; not with a tunnel up: the DNS query might go into the tunnel
        if failed is not None and through is not None:
            raise OSError(
                f"{failed.strerror or failed}; the way there leads into the tunnel {through}: if that is one to this "
                f"exit, end it first (wg-quick down {through})"
            ) from failed
        raise failed or OSError(f"{self._url.host} has no address")

    def _tunnel_on_the_way(self) -> str | None:
        """Returns the interface of a tunnel that requests go into, from which an exit may not let clients reach it."""
        from appliance.client.tunnel.links import tunnel_to

        return next((name for _, address in self._known if (name := tunnel_to(str(address[0]), self.mark))), None)

    def _resolve(self) -> Sequence[Address]:
        try:
            resolved = socket.getaddrinfo(self._url.host, self._url.port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise OSError(f"{self._url.host} is no name of a host") from error
        return [(family, address) for family, _, _, _, address in resolved[:MOST_ADDRESSES]]

    def _connect(self, family: socket.AddressFamily, address: tuple[object, ...], seconds: float) -> socket.socket:
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            if self.mark is not None:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self.mark)
            made.settimeout(min(seconds, DIAL_S))
            made.connect(address)
            made.settimeout(seconds)
        except BaseException:
            made.close()
            raise
        return made


def connect_unix(path: str, seconds: float) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(seconds)
        made.connect(path)
    except BaseException:
        made.close()
        raise
    return made


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
