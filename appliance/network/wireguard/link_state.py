"""Reads the network interface as it stands. Blocking."""

from __future__ import annotations

import errno
import os
import struct
from contextlib import contextmanager
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.domain.errors import TunnelError
from appliance.network.netlink import constants
from appliance.network.netlink.codec import attribute, attributes
from appliance.network.netlink.routing import routing_socket
from appliance.network.wireguard.link_routes import read_routes
from appliance.network.wireguard.tunnel import Link, Prefix

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from appliance.network.netlink.routing import RoutingSocket

IPV6_SIZE = 16
_IFINFOMSG = struct.Struct("=BxHiII")  # linux/rtnetlink.h: family, type, index, flags, which of them change
_IFADDRMSG = struct.Struct("=BBBBI")  # linux/if_addr.h: family, prefix length, flags, scope, index
_NUMBER = struct.Struct("=I")


def read_link(name: str, kind: str) -> Link | None:
    """Returns the interface of this name; None: there is no such interface.

    Raises TunnelError if the interface is of another kind than `kind`, or the kernel does not tell.
    """
    with _reading(name) as route:
        found = _find(route, name)
        if found is None:
            return None
        index, flags, has = found
        require_kind(name, _kind(has), kind)
        return Link(
            ifindex=index,
            up=bool(flags & constants.IFF_UP),
            mtu=_NUMBER.unpack(has[constants.IFLA_MTU])[0],
            addresses=frozenset(_addresses(route, index)),
            forwards=forwards(name),
            routes=read_routes(route, index),
        )


def link_kind(name: str) -> str | None:
    """Returns the interface's kind (`wireguard`, `tun`, ...; empty for hardware), or None if there is none."""
    with _reading(name) as route:
        found = _find(route, name)
        return None if found is None else _kind(found[2])


def require_kind(name: str, actual: str, wanted: str) -> None:
    """Raises TunnelError if an interface is of another kind than the wanted one: it is another program's."""
    if actual != wanted:
        is_kind = actual or "not virtual"
        raise TunnelError(f"{name}: an interface of this name is there, and it is {is_kind}, not {wanted}")


def forwards(name: str) -> bool:
    """Tells whether the interface forwards IPv4, as far as can be read."""
    try:
        return Path(f"/proc/sys/net/ipv4/conf/{name}/forwarding").read_text(encoding="ascii").strip() != "0"
    except OSError:
        return True


def in_words(code: int) -> str:
    """Returns an errno as errors name it."""
    return f"{errno.errorcode.get(code, code)} ({os.strerror(code)})"


@contextmanager
def _reading(name: str) -> Iterator[RoutingSocket]:
    try:
        with routing_socket(strict=True) as route:
            yield route
    except OSError as error:
        why = error if error.errno is None else in_words(error.errno)
        raise TunnelError(f"{name}: reading the interface: {why}") from error


def _find(route: RoutingSocket, name: str) -> tuple[int, int, Mapping[int, bytes]] | None:
    """Returns its index, flags and attributes; None if there is none."""
    request = _IFINFOMSG.pack(0, 0, 0, 0, 0) + attribute(constants.IFLA_IFNAME, name.encode() + b"\0")
    try:
        answer = route.ask(constants.RTM_GETLINK, request)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return None
    _, _, index, flags, _ = _IFINFOMSG.unpack_from(answer)
    return index, flags, dict(attributes(answer[_IFINFOMSG.size :]))


def _kind(has: Mapping[int, bytes]) -> str:
    info = dict(attributes(has.get(constants.IFLA_LINKINFO, b"")))
    return info.get(constants.IFLA_INFO_KIND, b"").rstrip(b"\0").decode("utf-8", "replace")


def _addresses(route: RoutingSocket, index: int) -> Iterator[Prefix]:
    """Yields its addresses, without IPv6's link-local ones."""
    for payload in route.dump(constants.RTM_GETADDR, _IFADDRMSG.pack(0, 0, 0, 0, index)):
        _, length, _, _, of = _IFADDRMSG.unpack_from(payload)
        has = dict(attributes(payload[_IFADDRMSG.size :]))
        # On a point-to-point link IFA_ADDRESS is the far end and IFA_LOCAL the near one (linux/if_addr.h).
        address = has.get(constants.IFA_LOCAL) or has.get(constants.IFA_ADDRESS)
        if of == index and address and not _is_link_local(address):
            yield Prefix(address, length)


def _is_link_local(address: bytes) -> bool:
    return len(address) == IPV6_SIZE and IPv6Address(address).is_link_local
