"""Decides what this host forwards: which sysctls to set for the tunnel, and what else stays unforwarded. Pure.

IPv4: the kernel forwards what comes in by an interface whose own `forwarding` is 1 (net/ipv4/route.c,
ip_mkroute_input); `ip_forward` need not be set. Setting that one changes all interfaces at once
(net/ipv4/devinet.c, inet_forward_change).

IPv6: the kernel asks `all` alone (net/ipv6/ip6_output.c, ip6_forward); an interface's own value tells whether it is a
router's. So `all` is set, and the interfaces and `default` keep their own values: what comes in by an interface that
no other program made a router's is dropped by the table. A program that sets `all` later makes them all 1 with it,
even if it was 1 before (net/ipv6/addrconf.c, addrconf_fixup_forwarding), by which it is noticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.network.firewall import reverse_path
from appliance.network.firewall.rules import Transit
from appliance.network.firewall.sysctl_paths import FORWARDING, OFF, ON, interface_of, of_interface

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

IP_FORWARD = "net/ipv4/ip_forward"
SEND_REDIRECTS = "net/ipv4/conf/all/send_redirects"
IPV6_ALL = "net/ipv6/conf/all/forwarding"
IPV6_DEFAULT = "net/ipv6/conf/default/forwarding"
IPV6_LOOPBACK = "net/ipv6/conf/lo/forwarding"
NO_TRANSIT = Transit()


@dataclass(frozen=True, slots=True)
class HostForwarding:
    """Holds how the host forwards.

    `values`: sysctls by path below /proc/sys. `found`: their values before the appliance set them, of those that are
    still its own. `uplinks`: the interfaces by which clients' packets leave and answers come in. `unsettable`: sysctls
    that are not needed and could not be set. `bridges`: from whose networks, a container's, answers may come in too.
    """

    values: Mapping[str, str]
    found: Mapping[str, str]
    uplinks: frozenset[str]
    unsettable: frozenset[str] = frozenset()
    bridges: frozenset[str] = frozenset()

    @property
    def owns_ipv6(self) -> bool:
        """Tells whether IPv6 is forwarded for the appliance alone, or will be."""
        if IPV6_ALL not in self.found:
            return self.values.get(IPV6_ALL) == OFF
        return IPV6_DEFAULT not in self.found or self.values.get(IPV6_DEFAULT) == OFF

    @property
    def set_by_earlier_version(self) -> bool:
        """Tells whether the global IPv4 switch is on because a version before this one set it."""
        return self.found.get(IP_FORWARD) == OFF and self.values.get(IP_FORWARD) == ON


def is_needed(name: str, value: str, default: frozenset[str]) -> bool:
    """Tells whether clients' traffic does not pass without this value. `default`: interfaces of a default route."""
    if value != ON:
        return False
    if name.endswith(f"/{FORWARDING}"):
        interface = interface_of(name, 4)
        return interface is None or interface in default
    return interface_of(name, 4, reverse_path.BY_MARK) in default


def wanted(host: HostForwarding, interface: str, *, ipv6: bool) -> Iterator[tuple[str, str]]:
    """Yields the sysctls that have to be set and their values, in order. `interface`: the tunnel's."""
    # The kernel's WireGuard clears this one by itself when its interface comes up (drivers/net/wireguard/device.c,
    # wg_open): a redirect would send clients around the tunnel, and a tunnel sends them where either its own value or
    # this one is 1. Listed here so that it is put back. Other interfaces go by their own value.
    yield SEND_REDIRECTS, OFF
    for uplink in sorted(host.uplinks):
        if of_interface(4, uplink) in host.values:
            yield of_interface(4, uplink), ON
    for name, value in sorted(host.found.items()):
        former = interface_of(name, 4)
        gone = former is None or former in host.uplinks or name not in host.values
        if not gone and host.values.get(IP_FORWARD) == OFF:
            yield name, value
    yield from reverse_path.wanted(host.values, host.found, {*host.uplinks, *host.bridges, interface})
    if not ipv6:
        return
    # A forwarding host ignores router advertisements unless accept_ra is 2; a host that got its IPv6 default
    # route from one would lose it. https://docs.kernel.org/networking/ip-sysctl.html#conf-all-accept-ra
    for name in sorted(host.values):
        head, _, last = name.rpartition("/")
        if last == "accept_ra" and host.values[name] == ON and head.rpartition("/")[2] not in ("all", "lo", interface):
            yield name, "2"
    yield IPV6_ALL, ON


def to_set(host: HostForwarding, interface: str, *, ipv6: bool) -> dict[str, str]:
    """Returns the sysctls that differ from what they should be."""
    differing = {
        name: value
        for name, value in wanted(host, interface, ipv6=ipv6)
        if host.values.get(name) != value and name not in host.unsettable
    }
    if ipv6 and IPV6_ALL in host.found and IPV6_DEFAULT not in host.found:
        # An earlier version set it, and left all interfaces as a router's: set again, they get their values back.
        differing[IPV6_ALL] = ON
    return differing


def presumed(host: HostForwarding, *, ipv6: bool) -> dict[str, str]:
    """Returns what the appliance must have set if it has served in this boot, and the values before.

    A program that sets the switch of all interfaces sets that of `lo` and of later ones with it.
    """
    values, before = host.values, dict[str, str]()
    if values.get(IP_FORWARD) == OFF:
        names = (of_interface(4, uplink) for uplink in host.uplinks)
        before |= {name: OFF for name in names if values.get(name) == ON}
    if ipv6 and [values.get(name) for name in (IPV6_ALL, IPV6_DEFAULT, IPV6_LOOPBACK)] == [ON, OFF, OFF]:
        before |= {IPV6_DEFAULT: OFF, IPV6_ALL: OFF}
    return before


def disowned(host: HostForwarding, interface: str) -> frozenset[str]:
    """Returns the sysctls that another program has set meanwhile too, so that the appliance must not put them back."""
    names = {*reverse_path.given_back(host.values, host.found, {*host.uplinks, *host.bridges, interface})}
    if host.values.get(IP_FORWARD) == ON and IP_FORWARD not in host.found:
        names |= {name for name in host.found if interface_of(name, 4) is not None}
    names |= {
        name
        for name, value in host.found.items()
        if (former := interface_of(name, 4)) is not None
        and former not in host.uplinks
        and host.values.get(name, value) == value
    }
    if IPV6_ALL in host.found and not host.owns_ipv6:
        names |= {IPV6_ALL, IPV6_DEFAULT}
    return frozenset(names)


def transit(host: HostForwarding, interface: str, bridges: frozenset[str], *, ipv6: bool) -> Transit:
    """Returns what the table has to keep from being forwarded between the host's other networks."""
    dropped_from = frozenset[str]()
    if host.values.get(IP_FORWARD) == OFF:
        dropped_from = frozenset(uplink for uplink in host.uplinks if _is_own(host, of_interface(4, uplink)))
    if not (ipv6 and host.owns_ipv6):
        return Transit(dropped_from, None, bridges if dropped_from else frozenset())
    routers = {name for name, value in host.values.items() if value == ON} if IPV6_DEFAULT in host.found else set()
    passing = frozenset(router for name in routers if (router := interface_of(name, 6)) not in (None, interface))
    return Transit(dropped_from, frozenset(map(str, passing)), bridges)


def _is_own(host: HostForwarding, name: str) -> bool:
    return name in host.found or host.values.get(name) == OFF
