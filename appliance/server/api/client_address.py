"""Finds where a request comes from: the socket's peer, or the address that a trusted proxy names."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from litestar.types import Scope

Address = IPv4Address | IPv6Address

# Access to the Unix socket is controlled by its mode: its peer is a proxy, or the operator.
LOCAL = "local"


def source_of(scope: Scope, trusted: Sequence[IPv4Network | IPv6Network]) -> str:
    """Returns the key by which requests are counted: an IPv4 address, or an IPv6 /64, which one subscriber has.

    X-Forwarded-For is read from the right, where the last proxy wrote, up to the first hop that is not `trusted`.
    The peer of a Unix socket is trusted; if it names no address, the key is LOCAL.
    """
    client = scope.get("client")
    source = None if client is None else _address(client[0])
    if client is not None and source is None:
        return LOCAL
    for hop in _hops_from_the_right(scope["headers"]):
        if source is not None and not _is_trusted(source, trusted):
            break
        named = _address(_without_port(hop))
        if named is None:  # "unknown", or garbage: hops to the left of it cannot be trusted
            break
        source = named
    return LOCAL if source is None else _counted_as(source)


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


def _is_trusted(address: Address, trusted: Sequence[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in trusted)


def _counted_as(address: Address) -> str:
    return str(address) if isinstance(address, IPv4Address) else f"{int(address) >> 64:x}/64"
