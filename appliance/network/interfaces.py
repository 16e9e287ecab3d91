"""Reads the host's own addresses and routes through rtnetlink."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

TABLE_MAIN = 254  # linux/rtnetlink.h RT_TABLE_MAIN
UNICAST = 1  # likewise RTN_UNICAST
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def has_ipv6() -> bool:
    """Tells whether the kernel has IPv6 (not ipv6.disable=1 on its command line); an interface may still lack it."""
    return Path("/proc/sys/net/ipv6/conf").exists()


def ipv6_is_off() -> bool:
    """Tells whether new interfaces start without IPv6."""
    switch = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
    return switch.exists() and switch.read_text(encoding="ascii").strip() != "0"


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


def host_networks(without: str) -> list[tuple[str, IPv4Network | IPv6Network]]:
    """Returns (interface name, network) of what the host reaches without its default routes, except by `without`."""
    return [(name, each.network) for name, each in host_interfaces(without)] + host_routes(without)


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
