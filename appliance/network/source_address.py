"""Chooses the address that a host sends from to the internet and that stays its own. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import TYPE_CHECKING

from appliance.network.netlink import constants

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Address, IPv6Address

    Address = IPv4Address | IPv6Address

UNIQUE_LOCAL = IPv6Network("fc00::/7")
SCOPE_GLOBAL = 0  # linux/rtnetlink.h RT_SCOPE_UNIVERSE
_FAILED = constants.IFA_F_DADFAILED
_TENTATIVE = constants.IFA_F_TENTATIVE


@dataclass(frozen=True, slots=True)
class HostAddress:
    """Describes one address of the host. `length`: of its prefix. `peer`: it is one end of a point-to-point link."""

    ifindex: int
    address: Address
    length: int
    scope: int
    flags: int
    peer: bool = False

    @property
    def usable(self) -> bool:
        """Tells whether the internet can be reached from it."""
        # An optimistic address is tentative and may be used (RFC 4429).
        tentative = self.flags & _TENTATIVE and not self.flags & constants.IFA_F_OPTIMISTIC
        return self.scope == SCOPE_GLOBAL and not tentative and not self.flags & _FAILED

    @property
    def has_neighbours(self) -> bool:
        """Tells whether its link has a network or another end of its own."""
        return self.peer or self.length < self.address.max_prefixlen


def lasting(
    version: int, kernel_choice: Address | None, ifindex: int, addresses: Sequence[HostAddress]
) -> Address | None:
    """Returns the address to tell and to send from by the interface `ifindex`; None if there is none.

    IPv4: what the kernel chose. IPv6: that too, unless the link has a better one: the kernel chooses by destination
    (RFC 6724), a privacy address before one that lasts, and a ULA where there is no other.
    """
    if version == 4:
        return kernel_choice
    candidates = [each for each in addresses if each.address.version == 6 and each.usable]
    candidates = [each for each in candidates if each.ifindex == ifindex or each.address == kernel_choice]
    best = min(candidates, key=lambda each: (_drawbacks(each), each.address != kernel_choice), default=None)
    return None if best is None else best.address


def _drawbacks(each: HostAddress) -> tuple[bool, bool, bool]:
    """Orders IPv6 addresses: worst is what the internet does not reach, then what ends, then what changes daily."""
    deprecated, temporary = (bool(each.flags & f) for f in (constants.IFA_F_DEPRECATED, constants.IFA_F_TEMPORARY))
    return each.address in UNIQUE_LOCAL, deprecated, temporary
