"""Reads the host's own addresses, routes and uplinks through rtnetlink."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

LEAST_METRIC = 0  # a route without one
SCOPE_GLOBAL = 0  # linux/rtnetlink.h RT_SCOPE_UNIVERSE
TABLE_MAIN = 254  # likewise RT_TABLE_MAIN
UNICAST = 1  # likewise RTN_UNICAST
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Uplink:
    """Describes a default route. `address`: the source address it uses; None if the host has no global address."""

    interface: str
    mtu: int
    address: IPv4Address | IPv6Address | None


def default_route_address() -> IPv4Address | IPv6Address:
    """Returns the source address of this host's default route: IPv4 if there is one, else IPv6."""
    for uplink in uplinks().values():
        if uplink.address is not None:
            return uplink.address
    raise HostError("node.public_ip is auto, and this host has no default route; set it to the address clients dial")


def has_ipv6() -> bool:
    """Tells whether the kernel has IPv6 (not ipv6.disable=1 on its command line); an interface may still lack it."""
    return Path("/proc/sys/net/ipv6/conf").exists()


def ipv6_is_off() -> bool:
    """Tells whether new interfaces start without IPv6."""
    switch = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
    return switch.exists() and switch.read_text(encoding="ascii").strip() != "0"


def uplinks() -> dict[int, Uplink]:
    """Returns the best default route of each IP version that has one, IPv4 first."""
    with _rtnetlink() as route:
        routes = {version: _uplink(route, family) for version, family in FAMILIES.items()}
    return {version: uplink for version, uplink in routes.items() if uplink is not None}


@contextmanager
def _rtnetlink() -> Iterator[Any]:
    """Raises HostError where an interface goes away while it is asked about."""
    from pyroute2 import IPRoute  # type: ignore[import-untyped]  # it ships no types
    from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]  # likewise

    # No groups: we ask, and listen to no events.
    try:
        with IPRoute(groups=0) as route:
            yield route
    except NetlinkError as error:
        raise HostError(f"the host's interfaces cannot be read: {error}") from error


def _uplink(route: Any, family: int) -> Uplink | None:
    """Returns the best default route, preferring those with a source address; None without a default route."""
    routes = sorted(route.get_default_routes(family=family), key=lambda r: r.get_attr("RTA_PRIORITY") or LEAST_METRIC)
    candidates = [_uplink_of(route, family, default) for default in routes if default["type"] == UNICAST]
    with_address = [uplink for uplink in candidates if uplink.address is not None]
    return next(iter(with_address or candidates), None)


def _uplink_of(route: Any, family: int, default: Any) -> Uplink:
    ways = default.get_attr("RTA_MULTIPATH")
    index = ways[0]["oif"] if ways else default.get_attr("RTA_OIF")
    (link,) = route.get_links(index)
    source = default.get_attr("RTA_PREFSRC")
    addresses = [ip_address(source)] if source else list(_global_addresses(route, family, index))
    return Uplink(link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_MTU"), next(iter(addresses), None))


def _global_addresses(route: Any, family: int, index: int) -> Iterator[IPv4Address | IPv6Address]:
    for address in route.get_addr(family=family, index=index):
        if address["scope"] == SCOPE_GLOBAL:
            yield ip_address(address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS"))


def host_routes(without: str) -> list[tuple[str, IPv4Network | IPv6Network]]:
    """Returns (interface name, destination) of the main table's unicast routes, except of the interface `without`."""
    with _rtnetlink() as route:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in route.get_links()}
        return [
            (name, ip_network(f"{entry.get_attr('RTA_DST')}/{entry['dst_len']}"))
            for family in FAMILIES.values()
            for entry in route.get_routes(family=family, table=TABLE_MAIN)
            if entry["type"] == UNICAST
            and entry.get_attr("RTA_DST")
            and (name := names.get(entry.get_attr("RTA_OIF"), "?")) != without
        ]


def host_interfaces(without: str) -> list[tuple[str, IPv4Interface | IPv6Interface]]:
    """Returns (interface name, address) of every address of the host, except of the interface `without`."""
    with _rtnetlink() as route:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in route.get_links()}
        return [
            (names.get(address["index"], "?"), interface)
            for address in route.get_addr()
            for interface in _interface(address)
            if names.get(address["index"]) != without
        ]


def _interface(address: Any) -> Iterator[IPv4Interface | IPv6Interface]:
    text = address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS")
    if text:
        yield ip_interface(f"{text}/{address['prefixlen']}")


def networks(interfaces: list[tuple[str, IPv4Interface | IPv6Interface]]) -> list[IPv4Network | IPv6Network]:
    return [interface.network for _, interface in interfaces]
