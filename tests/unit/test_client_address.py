"""Whom a request is counted against: the peer, or the hop that the last trusted proxy names."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, cast

import pytest

from appliance.server.api.client_address import LOCAL, Sources, source_of, source_of_peer

if TYPE_CHECKING:
    from litestar.types import Scope

TRUSTED = tuple(map(ip_network, ("127.0.0.0/8", "10.0.0.0/8", "fd00::/8")))
TUNNEL = tuple(map(ip_network, ("10.101.0.0/24", "fd65:7869:7400::/112")))  # trusted networks hold both
PROXY, UNIX = "127.0.0.1", None


def source(peer: str | None, *headers: str, trusted: bool = True) -> str:
    lines = [(b"host", b"exit.test"), *((b"x-forwarded-for", header.encode("latin-1")) for header in headers)]
    scope = {"client": None if peer is None else (peer, 4711), "headers": lines}
    return source_of(cast("Scope", scope), Sources(TRUSTED, TUNNEL) if trusted else Sources())


CASES = {
    "no header": (("192.0.2.1",), "192.0.2.1"),
    "a peer that is no proxy names whom it likes": (("192.0.2.1", "203.0.113.9"), "192.0.2.1"),
    "a proxy": ((PROXY, "203.0.113.9"), "203.0.113.9"),
    "a proxy that names nobody": ((PROXY,), PROXY),
    "the client's own words are left of the proxy's": ((PROXY, "198.51.100.1, 203.0.113.9"), "203.0.113.9"),
    "a chain of proxies": ((PROXY, "198.51.100.1, 203.0.113.9, 10.0.0.2,10.0.0.1"), "203.0.113.9"),
    "a chain over several lines": ((PROXY, "198.51.100.1, 203.0.113.9", "10.0.0.1"), "203.0.113.9"),
    "nobody but proxies": ((PROXY, "10.0.0.2, 10.0.0.1"), "10.0.0.2"),
    "garbage is where it ends": ((PROXY, "203.0.113.9, unknown"), PROXY),
    "garbage behind a proxy": ((PROXY, "203.0.113.9, _hidden, 10.0.0.1"), "10.0.0.1"),
    "empty": ((PROXY, ""), PROXY),
    "empty hops": ((PROXY, "203.0.113.9,,"), PROXY),
    "not ASCII": ((PROXY, "203.0.113.9, \xe9"), PROXY),
    "with a port": ((PROXY, "203.0.113.9:4711"), "203.0.113.9"),
    "IPv6 in brackets with a port": ((PROXY, "[2001:db8:1:2::3]:4711"), "20010db800010002/64"),
    "IPv6 by /64": (("2001:db8:1:2::3",), "20010db800010002/64"),
    "an IPv4 peer of an IPv6 socket": (("::ffff:192.0.2.1",), "192.0.2.1"),
    "an IPv4 proxy of an IPv6 socket": (("::ffff:127.0.0.1", "203.0.113.9"), "203.0.113.9"),
    "link-local": (("fe80::1%eth0",), "fe80000000000000/64"),
    "an IPv6 proxy": (("fd00::1", "203.0.113.9"), "203.0.113.9"),
    "a client in the tunnel names whom it likes": (("10.101.0.7", "203.0.113.9"), "10.101.0.7"),
    "clients in the tunnel are subscribers of one /64": (("fd65:7869:7400::7", "203.0.113.9"), "fd65:7869:7400::7"),
    "a proxy that names a client in the tunnel": ((PROXY, "203.0.113.9, 10.101.0.7"), "10.101.0.7"),
    "a Unix socket's peer": ((UNIX,), LOCAL),
    "a Unix socket's peer is a proxy": ((UNIX, "198.51.100.1, 203.0.113.9"), "203.0.113.9"),
    "a Unix socket's proxy behind another": ((UNIX, "203.0.113.9, 10.0.0.1"), "203.0.113.9"),
    "a Unix socket's peer that writes garbage": ((UNIX, "203.0.113.9, unknown"), LOCAL),
}


@pytest.mark.parametrize(("asked", "counted"), CASES.values(), ids=CASES)
def test_the_rightmost_untrusted_hop_is_the_source(asked: tuple[str | None, ...], counted: str) -> None:
    """The peer, unless it is trusted: then the rightmost hop that is not."""
    assert source(*asked) == counted


def test_neighbours_in_a_64_are_one() -> None:
    """Whoever has a whole /64 is one source; the next /64 is another."""
    assert source("2001:db8:0:1::1") == source("2001:db8:0:1:ffff:ffff:ffff:ffff") != source("2001:db8:0:2::1")


def test_nobody_is_trusted_by_default() -> None:
    """Without trusted proxies the header says nothing, whoever sends it over TCP."""
    assert source(PROXY, "203.0.113.9", trusted=False) == PROXY


@pytest.mark.parametrize(
    ("peer", "counted"),
    [
        (("192.0.2.1", 4711), "192.0.2.1"),
        (("::ffff:192.0.2.1", 4711, 0, 0), "192.0.2.1"),
        (("2001:db8:1:2::3", 4711, 0, 0), "20010db800010002/64"),
        (("fe80::1%eth0", 4711, 0, 2), "fe80000000000000/64"),
        (("10.101.0.7", 4711), "10.101.0.7"),
        (("fd65:7869:7400::7", 4711, 0, 0), "fd65:7869:7400::7"),
        ((PROXY, 4711), None),
        (("fd00::1", 4711, 0, 0), None),
        ("", None),
        (b"", None),
    ],
)
def test_whose_connection_it_is(peer: object, counted: str | None) -> None:
    """A connection is its peer's, a proxy's and a Unix socket's are nobody's: they are of many."""
    assert source_of_peer(peer, Sources(TRUSTED, TUNNEL)) == counted
