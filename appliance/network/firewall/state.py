"""Compares the host's firewall state with the wanted one, and returns the changes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class EgressState:
    """Holds the current state. `rules_stand`: the table is as last applied. `sysctls`: values by path below /proc/sys.

    `others_seen`: no other table has changed since all of them were checked for letting clients through.
    `policy_rules_stand`, `filter_stands`: the ip rules, and the filter of the tunnel's interface, if there is one.
    """

    rules_stand: bool
    sysctls: Mapping[str, str]
    others_seen: bool = True
    policy_rules_stand: bool = True
    filter_stands: bool = True


@dataclass(frozen=True, slots=True)
class EgressChanges:
    """Lists changes, to be applied in field order: nothing is forwarded before the blocks are in place."""

    rules: bool = False
    policy_rules: bool = False
    filter: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)  # in the order in which to set them
    others: bool = False


def reconcile(state: EgressState, *, interface: str, ipv6: bool) -> EgressChanges | None:
    """Returns the changes to make, None if there are none. `interface`: the tunnel's; `ipv6`: whether it has IPv6."""
    wanted = _wanted(state.sysctls, interface, ipv6=ipv6)
    sysctls = {name: value for name, value in wanted if state.sysctls.get(name) != value}
    changes = EgressChanges(
        rules=not state.rules_stand,
        policy_rules=not state.policy_rules_stand,
        filter=not state.filter_stands,
        sysctls=sysctls,
        others=not state.others_seen,
    )
    return None if changes == EgressChanges() else changes


def _wanted(actual: Mapping[str, str], interface: str, *, ipv6: bool) -> Iterator[tuple[str, str]]:
    # The kernel's WireGuard clears this one by itself when its interface comes up (drivers/net/wireguard/device.c,
    # wg_open): a redirect would send clients around the tunnel. Listed here so that it is put back.
    yield "net/ipv4/conf/all/send_redirects", "0"
    yield "net/ipv4/ip_forward", "1"
    if not ipv6:
        return
    # A forwarding host ignores router advertisements unless accept_ra is 2; a host that got its IPv6 default
    # route from one would lose it. https://docs.kernel.org/networking/ip-sysctl.html#conf-all-accept-ra
    for name in sorted(actual):
        head, _, last = name.rpartition("/")
        if last == "accept_ra" and actual[name] == "1" and head.rpartition("/")[2] not in ("all", "lo", interface):
            yield name, "2"
    yield "net/ipv6/conf/all/forwarding", "1"
