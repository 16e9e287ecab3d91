"""Finds where a request comes from: the socket's peer, or the address that a trusted proxy names."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from litestar.types import Scope

Address = IPv4Address | IPv6Address

# Access to the Unix socket is controlled by its mode: its peer is a proxy, or the operator.
LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Sources:
    """Tells proxies that name the source of a request from sources themselves.

    Addresses in `tunnel` are clients of the exit, never proxies.
    """

    proxies: Sequence[IPv4Network | IPv6Network] = ()
    tunnel: Sequence[IPv4Network | IPv6Network] = ()

    def trusts(self, address: Address) -> bool:
        return _within(address, self.proxies) and not _within(address, self.tunnel)

    def key(self, address: Address) -> str:
        """Returns the key by which an address is counted: in the tunnel, each is a subscriber."""
        if isinstance(address, IPv4Address) or _within(address, self.tunnel):
            return str(address)
        return f"{int(address) >> 64:x}/64"


def source_of(scope: Scope, sources: Sources) -> str:
    """Returns the key by which requests are counted: an IPv4 address, or an IPv6 /64, which one subscriber has.

    X-Forwarded-For is read from the right, where the last proxy wrote, up to the first hop that is not trusted.
    The peer of a Unix socket is trusted; if it names no address, the key is LOCAL.
    """
    client = scope.get("client")
    source = None if client is None else _address(client[0])
    if client is not None and source is None:
        return LOCAL
    for hop in _hops_from_the_right(scope["headers"]):
        if source is not None and not sources.trusts(source):
            break
        named = _address(_without_port(hop))
        if named is None:  # "unknown", or garbage: hops to the left of it cannot be trusted
            break
        source = named
    return LOCAL if source is None else sources.key(source)


def source_of_peer(peer: object, sources: Sources) -> str | None:
    """Returns the key by which connections are counted; `peer`: the address of accept(2).

    None for a trusted proxy and for a Unix socket's peer, whose connections are of many clients.
    """
    if not isinstance(peer, tuple):
        return None
    address = _address(str(peer[0]))
    return None if address is None or sources.trusts(address) else sources.key(address)


def _hops_from_the_right(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    values = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    return [hop.strip() for hop in reversed(",".join(values).split(","))] if values else []


def _without_port(hop: str) -> str:
    """Strips a port, which some proxies append: 192.0.2.1:4711 and [2001:db8::1]:4711."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _within(address: Address, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)
