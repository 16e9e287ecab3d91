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
    """Describes how clients' packets leave. `source`: the address; None takes the outgoing interface's."""

    source: IPv4Address | IPv6Address | None


@dataclass(frozen=True, slots=True)
class Marking:
    """Describes how what the table lets in is told from what it has not seen: by a bit of the packet's mark."""

    bit: int


@dataclass(frozen=True, slots=True)
class EgressRules:
    """Describes what clients may reach, and how their traffic leaves.

    `own_ports`: the TCP ports on which the appliance itself listens on all addresses, so on the tunnel's too.
    """

    tunnel: TunnelNetworks
    blocks: Blocks
    translation: Translation
    own_ports: Sequence[int] = ()
    marking: Marking | None = None
