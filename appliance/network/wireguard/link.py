"""Makes, changes and deletes the network interface through rtnetlink. Blocking.

pyroute2's IPRoute runs a private event loop over its socket and belongs to the thread that created it. So each call
here opens and closes one: about 2 ms, with nothing left open. It is imported on first use, to keep the command line
fast. What each whole tick reads is read without it (`link_state`).
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.domain.errors import TunnelError
from appliance.network.netlink import constants
from appliance.network.wireguard.link_routes import add_routes
from appliance.network.wireguard.link_state import IPV6_SIZE, forwards, in_words, require_kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.wireguard.tunnel import LinkChange, Prefix


def create_wireguard(name: str) -> None:
    """Adds an interface of kind wireguard; an existing interface stays unchanged, of whatever kind."""
    with _rtnetlink(name, "creating the interface") as route, _ignoring(errno.EEXIST):
        route.link("add", ifname=name, kind="wireguard")


def change_link(name: str, change: LinkChange) -> None:
    """Applies `change`, except `create`. Adding a present address or removing an absent one succeeds."""
    with _rtnetlink(name, "changing the interface") as route:
        interface = _find(route, name)
        if interface is None:
            raise TunnelError(f"{name}: there is no such interface")
        index = interface["index"]
        if change.mtu is not None:
            route.link("set", index=index, mtu=change.mtu)
        for prefix in sorted(change.remove_addresses):
            with _ignoring(errno.EADDRNOTAVAIL):
                route.addr("del", **_address(index, prefix))
        if any(len(prefix.address) == IPV6_SIZE for prefix in change.add_addresses):
            _enable_ipv6(name)
        for prefix in sorted(change.add_addresses):
            _add_address(route, name, index, prefix)
        if change.up:
            route.link("set", index=index, state="up")
            _send_no_redirects(name)
        if change.forward:
            _forward(name)
        if change.add_routes:
            add_routes(index, change.add_routes)


def _forward(name: str) -> None:
    """Forwards what comes in by this interface. Raises TunnelError."""
    # The kernel does not ask IPv6's; a firewall tells by it that this interface is to be forwarded from.
    with suppress(OSError):
        Path(f"/proc/sys/net/ipv6/conf/{name}/forwarding").write_text("1", encoding="ascii")
    if forwards(name):
        return
    try:
        Path(f"/proc/sys/net/ipv4/conf/{name}/forwarding").write_text("1", encoding="ascii")
    except OSError as error:
        raise TunnelError(
            f"cannot set net.ipv4.conf.{name}.forwarding = 1: {error.strerror}; set net.ipv4.ip_forward=1 on the "
            "machine around this container"
        ) from error


def _enable_ipv6(name: str) -> None:
    """Enables IPv6 on this interface, and on no other.

    If the host disables IPv6, new interfaces start without it and take no IPv6 address.
    """
    disabled = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    with suppress(OSError):  # /proc/sys is read-only, or the kernel has no IPv6: adding the address reports it
        if disabled.read_text(encoding="ascii").strip() != "0":
            disabled.write_text("0", encoding="ascii")


def _send_no_redirects(name: str) -> None:
    """Disables ICMP redirects; the kernel's WireGuard does so itself (drivers/net/wireguard/device.c, wg_open).

    wireguard-go does not. A redirect would send traffic between clients around the exit, and uses up the rate limit of
    ICMP errors to them.
    """
    with suppress(OSError):  # /proc/sys is read-only here
        Path(f"/proc/sys/net/ipv4/conf/{name}/send_redirects").write_text("0", encoding="ascii")


def delete_link(name: str, kind: str) -> None:
    """Removes the interface, if there is one. Raises TunnelError if it is of another kind: it is another program's."""
    with _rtnetlink(name, "deleting the interface") as route, _ignoring(errno.ENODEV):
        interface = _find(route, name)
        if interface is not None:
            require_kind(name, _kind(interface), kind)
            route.link("del", index=interface["index"])


@contextmanager
def _rtnetlink(name: str, action: str) -> Iterator[Any]:
    """Opens an IPRoute in this thread's network namespace; raises its errors as TunnelError."""
    from pyroute2 import IPRoute  # type: ignore[import-untyped]  # it ships no types
    from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]  # likewise

    try:
        # No groups: without them pyroute2 subscribes to all routing events and queues what it hears.
        with IPRoute(groups=0) as route:
            yield route
    except NetlinkError as error:
        raise TunnelError(f"{name}: {action}: {in_words(error.code)}") from error
    except OSError as error:
        raise TunnelError(f"{name}: {action}: {error}") from error


@contextmanager
def _ignoring(code: int) -> Iterator[None]:
    """Treats this one errno of the kernel as success."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code != code:
            raise


def _find(route: Any, name: str) -> Any:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        return route.link("get", ifname=name)[0]
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise
        return None


def _kind(link: Any) -> str:
    info = link.get_attr("IFLA_LINKINFO")
    return "" if info is None else info.get_attr("IFLA_INFO_KIND") or ""


def _address(index: int, prefix: Prefix) -> dict[str, Any]:
    family = socket.AF_INET if len(prefix.address) == 4 else socket.AF_INET6
    text = str(ipaddress.ip_address(prefix.address))
    return {"index": index, "family": family, "address": text, "prefixlen": prefix.length}


def _add_address(route: Any, name: str, index: int, prefix: Prefix) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    wanted = _address(index, prefix)
    ipv6 = wanted["family"] == socket.AF_INET6
    if ipv6:
        # A tunnel has no neighbours: duplicate address detection is not needed.
        wanted["flags"] = constants.IFA_F_NODAD
    try:
        with _ignoring(errno.EEXIST):
            route.addr("add", **wanted)
    except NetlinkError as error:
        # net/ipv6/addrconf.c: EACCES under disable_ipv6; no IPv6 state on the interface at all (ipv6.disable=1,
        # an MTU under 1280) is one of the others.
        no_ipv6 = ipv6 and error.code in (errno.EACCES, errno.EOPNOTSUPP, errno.ENODEV, errno.ENOBUFS, errno.EINVAL)
        hint = f"; is IPv6 disabled here? (net.ipv6.conf.{name}.disable_ipv6)" if no_ipv6 else ""
        raise TunnelError(
            f"{name}: cannot add the address {wanted['address']}/{prefix.length}: {in_words(error.code)}{hint}"
        ) from error
