"""The host's own addresses, through rtnetlink."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any

from appliance.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

LEAST_METRIC = 0  # a route without one
SCOPE_GLOBAL = 0  # linux/rtnetlink.h RT_SCOPE_UNIVERSE


def default_route_address() -> IPv4Address | IPv6Address:
    """The address this host sends from by its default route: IPv4 where there is one, else IPv6."""
    with _rtnetlink() as route:
        for family in (socket.AF_INET, socket.AF_INET6):
            found = _default_address(route, family)
            if found is not None:
                return found
    raise HostError("node.public_ip is auto, and this host has no default route; set it to the address clients dial")


@contextmanager
def _rtnetlink() -> Iterator[Any]:
    from pyroute2 import IPRoute  # type: ignore[import-untyped]  # it ships no types

    # No groups: we ask, and listen to no events.
    with IPRoute(groups=0) as route:
        yield route


def _default_address(route: Any, family: int) -> IPv4Address | IPv6Address | None:
    routes = sorted(route.get_default_routes(family=family), key=lambda r: r.get_attr("RTA_PRIORITY") or LEAST_METRIC)
    for default in routes:
        if source := default.get_attr("RTA_PREFSRC"):
            return ip_address(source)
        for address in route.get_addr(family=family, index=default.get_attr("RTA_OIF") or 0):
            if address["scope"] == SCOPE_GLOBAL:
                return ip_address(address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS"))
    return None


def host_interfaces(without: str) -> list[tuple[str, IPv4Interface | IPv6Interface]]:
    """(interface name, address) of every address of the host but those of the interface `without`."""
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
