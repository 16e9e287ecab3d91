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
class Transit:
    """Describes what is not forwarded between the host's other networks.

    `ipv4_from`: what comes in by these interfaces. `ipv6_but_from`: what comes in by any but these; None: all passes.
    `bridges`: whose traffic between their own ports passes.
    """

    ipv4_from: frozenset[str] = frozenset()
    ipv6_but_from: frozenset[str] | None = None
    bridges: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.ipv4_from) or self.ipv6_but_from is not None


@dataclass(frozen=True, slots=True)
class Answers:
    """Describes the packets of a tunnel in user space that have to take the host's own routes.

    `port`: the tunnel's. `uplinks`: the interfaces of a default route; by another one there may be no way any more.
    """

    port: int = 0
    uplinks: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.port and self.uplinks)


@dataclass(frozen=True, slots=True)
class EgressRules:
    """Describes what clients may reach, and how their traffic leaves.

    `own_ports`: the TCP ports on which the appliance itself listens on all addresses, so on the tunnel's too.
    `forward_others`: the host forwards between its other networks too.
    """

    tunnel: TunnelNetworks
    blocks: Blocks
    translation: Translation
    own_ports: Sequence[int] = ()
    forward_others: bool = False
    transit: Transit = Transit()
    answers: Answers = Answers()
