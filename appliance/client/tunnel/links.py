"""Manages veth links between the host and a network namespace, and routes, through rtnetlink."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager, suppress
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, NamedTuple

from appliance.domain.errors import HostError
from appliance.network.uplinks import NO_WAY
from appliance.network.wireguard import link, link_state
from appliance.network.wireguard.tunnel import LinkChange, Prefix

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from appliance.client.tunnel.namespace import Namespace
    from appliance.network.wireguard.client_config import IPAddress

IPNetwork = IPv4Network | IPv6Network

UPLINK = "uplink"  # the name of the link's end in the namespace
KIND = "veth"
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
TUNNEL_KINDS = {"wireguard", "tun"}  # of the kernel's WireGuard and of wireguard-go's interfaces
SCOPE_LINK = 253  # linux/rtnetlink.h RT_SCOPE_LINK: destinations are reached without a gateway


class Ends(NamedTuple):
    """Holds the addresses of a link's two ends, in one network."""

    host: IPAddress
    space: IPAddress
    prefix_length: int


def join(space: Namespace, host_end: str, addresses: Sequence[Ends]) -> None:
    """Creates a link between the host and `space` and sets both ends up. It is created in `space`, so that the host
    never has both ends.

    Raises HostError if the link cannot be created.
    """
    host = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        space.run(_add, host_end, host)
    finally:
        os.close(host)
    link.change_link(host_end, _up(Prefix(ends.host.packed, ends.prefix_length) for ends in addresses))
    space.run(link.change_link, UPLINK, _up(Prefix(ends.space.packed, ends.prefix_length) for ends in addresses))


def remove(host_end: str) -> None:
    """Deletes a link with both ends, their addresses and routes. A missing link is not an error."""
    link.delete_link(host_end, KIND)


def move(interface: str, space: Namespace) -> None:
    """Moves an interface from this thread's network namespace into another, under the same name.

    Raises HostError if the kernel refuses.
    """
    there = space.run(os.open, "/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with rtnetlink(f"cannot move {interface}") as route:
            route.link("set", index=socket.if_nametoindex(interface), net_ns_fd=there)
    finally:
        os.close(there)


def add_route(to: IPNetwork, interface: str, via: IPAddress | None = None, *, replace: bool = False) -> None:
    """Adds a route. Raises HostError if it exists already and `replace` is False, or the kernel refuses."""
    with rtnetlink(f"cannot add the route to {to}") as route:
        onward = {"scope": SCOPE_LINK} if via is None else {"gateway": str(via)}
        index = socket.if_nametoindex(interface)
        route.route("replace" if replace else "add", family=FAMILIES[to.version], dst=str(to), oif=index, **onward)


def mtu_to(destination: IPAddress) -> int:
    """Returns the MTU of this host's route to the destination: its own if it has one, else its interface's.

    Raises HostError without a route.
    """
    with rtnetlink(f"cannot find the route to {destination}") as route:
        (way,) = route.route("get", dst=str(destination), family=FAMILIES[destination.version])
        metrics = way.get_attr("RTA_METRICS")
        own = None if metrics is None else metrics.get_attr("RTAX_MTU")
        if own:
            return int(own)
        (interface,) = route.get_links(way.get_attr("RTA_OIF"))
        return int(interface.get_attr("IFLA_MTU"))


def way_to(destination: str, mark: int | None = None) -> str | None:
    """Returns the interface by which packets (with this fwmark) leave for an address; None if they do not leave.

    Raises HostError if rtnetlink fails otherwise.
    """
    marked = {} if mark is None else {"mark": mark}
    try:
        with rtnetlink(f"cannot find the route to {destination}") as route:
            (way,) = route.route("get", dst=destination, family=FAMILIES[ip_address(destination).version], **marked)
            (interface,) = route.get_links(way.get_attr("RTA_OIF"))
            return str(interface.get_attr("IFLA_IFNAME"))
    except HostError as error:
        code = getattr(error.__cause__, "code", None)
        if code in NO_WAY:
            return None
        raise


def tunnel_to(destination: str, mark: int | None = None) -> str | None:
    """Returns the WireGuard interface by which packets leave for an address; None if it is not known to be one."""
    with suppress(HostError, ValueError, OSError):
        name = way_to(destination.partition("%")[0], mark)
        if name is not None and link_state.link_kind(name) in TUNNEL_KINDS:
            return name
    return None


def routed() -> list[IPNetwork]:
    """Returns every destination that the host has a route to, in any table; a default route is /0."""
    with rtnetlink("cannot read the host's routes") as route:
        return [
            ip_network(f"{each.get_attr('RTA_DST') or everything}/{each['dst_len']}")
            for version, everything in ((4, "0.0.0.0"), (6, "::"))  # noqa: S104 (a network)
            for each in route.get_routes(family=FAMILIES[version])
        ]


def _add(host_end: str, host: int) -> None:
    with rtnetlink("cannot make a link to the host") as route:
        route.link("add", ifname=UPLINK, kind=KIND, peer={"ifname": host_end, "net_ns_fd": host})


def _up(addresses: Iterable[Prefix]) -> LinkChange:
    return LinkChange(add_addresses=frozenset(addresses), up=True)


@contextmanager
def rtnetlink(failed: str) -> Iterator[Any]:
    """Yields an IPRoute in this thread's network namespace. Raises HostError on an error; its message begins with
    `failed`."""
    from pyroute2 import IPRoute  # type: ignore[import-untyped]  # it ships no types
    from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]  # likewise

    try:
        with IPRoute(groups=0) as route:
            yield route
    except NetlinkError as error:
        raise HostError(f"{failed}: {os.strerror(error.code)}") from error
    except OSError as error:
        raise HostError(f"{failed}: {error}") from error
