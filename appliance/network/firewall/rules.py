"""Declares what the exit's nftables table does. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    from appliance.config.value_types import AddressPort

    Address = IPv4Address | IPv6Address
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

    @property
    def own(self) -> Mapping[int, Address]:
        """Returns the exit's own address in the tunnel, by IP version."""
        return {subnet.version: subnet[1] for _, subnet in self.by_family if subnet is not None}


@dataclass(frozen=True, slots=True)
class Blocks:
    """Describes what clients may not reach. `allowed`: what they reach although `private` blocks it."""

    smtp: bool
    private: bool
    other_clients: bool
    extra: Sequence[Network]
    allowed: Sequence[Network | AddressPort] = ()


@dataclass(frozen=True, slots=True)
class HostService:
    """Names where a service of the host listens for TCP: 0.0.0.0 and :: are all addresses of that IP version."""

    address: Address
    port: int

    @property
    def everywhere(self) -> bool:
        return self.address.is_unspecified


@dataclass(frozen=True, slots=True)
class HostServices:
    """Describes the services of the host that the appliance knows.

    `public_ip`: the address at which the internet reaches them; it may be a NAT's and not the host's. `endpoints`:
    others that clients dial. `open`: clients reach them as the internet does. `closed`: clients reach them nowhere.
    """

    public_ip: Address | None = None
    open: Sequence[HostService] = ()
    closed: Sequence[HostService] = ()
    endpoints: Sequence[Address] = ()

    def dialled(self, version: int) -> list[Address]:
        """Returns the addresses of an IP version at which the internet reaches them, each once."""
        known = [*([] if self.public_ip is None else [self.public_ip]), *self.endpoints]
        return list(dict.fromkeys(address for address in known if address.version == version))


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
class FlowLimits:
    """Limits the connections of one client: `open` at a time, `new` ones a second. 0: no limit."""

    open: int
    new: int


UNLIMITED = FlowLimits(open=0, new=0)


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

    `port`: the tunnel's. `uplinks`: those by which a route leads out; by another one there may be no way any more.
    """

    port: int = 0
    uplinks: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.port and self.uplinks)


@dataclass(frozen=True, slots=True)
class HostRouting:
    """Describes what the table has to do because of how the host routes.

    `filtered`: the interfaces where answers to clients need the mark to pass the reverse path filter.
    """

    transit: Transit = Transit()
    answers: Answers = Answers()
    filtered: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Marking:
    """Describes how what the table lets in is told from what it has not seen: by a bit of the packet's mark."""

    bit: int


@dataclass(frozen=True, slots=True)
class EgressRules:
    """Describes what clients may reach, and how their traffic leaves.

    `forward_others`: the host forwards between its other networks too.
    """

    tunnel: TunnelNetworks
    blocks: Blocks
    translation: Translation
    port_ranges: PortRanges = PortRanges()
    services: HostServices = HostServices()
    flows: FlowLimits = UNLIMITED
    forward_others: bool = False
    routing: HostRouting = HostRouting()
    marking: Marking | None = None
