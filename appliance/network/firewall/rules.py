"""Declares what the exit's nftables table does. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class TunnelNetworks:
    """Names the tunnel's interface and its subnets. `subnet6` None: no IPv6 in the tunnel's addresses."""

    interface: str
    subnet: IPv4Network
    subnet6: IPv6Network | None

    @property
    def by_family(self) -> tuple[tuple[str, Network | None], ...]:
        """Returns (nftables' name of the IP version, subnet) of both versions."""
        return ("ip", self.subnet), ("ip6", self.subnet6)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Describes what clients may not reach."""

    smtp: bool
    private: bool
    other_clients: bool
    extra: Sequence[Network]


@dataclass(frozen=True, slots=True)
class Translation:
    """Describes how clients' packets leave: with the address named for the interface, by others with that link's own.

    `by_interface`: at most one of each IP version for an interface.
    """

    by_interface: Sequence[tuple[str, IPv4Address | IPv6Address]] = ()


@dataclass(frozen=True, slots=True)
class PortRange:
    """Describes the ports from `first` to `last`, both included."""

    first: int
    last: int

    @property
    def width(self) -> int:
        return self.last - self.first + 1

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


UNPRIVILEGED = PortRange(1024, 65535)


@dataclass(frozen=True, slots=True)
class PortRanges:
    """Describes the source ports that clients' packets leave with. None: there is none that the host does not use."""

    tcp: PortRange | None = UNPRIVILEGED
    udp: PortRange | None = UNPRIVILEGED


@dataclass(frozen=True, slots=True)
class EgressRules:
    """Describes what clients may reach, and how their traffic leaves.

    `own_ports`: the TCP ports on which the appliance itself listens on all addresses, so on the tunnel's too.
    """

    tunnel: TunnelNetworks
    blocks: Blocks
    translation: Translation
    own_ports: Sequence[int] = ()
    port_ranges: PortRanges = PortRanges()
