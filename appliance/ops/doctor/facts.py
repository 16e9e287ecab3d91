"""Declares the facts a diagnosis uses: of the host, the state and the running server. None: could not be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.network.firewall.forwarding import HostForwarding
from appliance.network.firewall.table_choice import FIRST

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
    from pathlib import Path

    from appliance.config.load import Settings
    from appliance.domain.clock import Moment
    from appliance.network.admission.mark import Mark
    from appliance.network.admission.policy_rules import PolicyRule
    from appliance.network.firewall.flow_capacity import TableSize
    from appliance.network.public_address import Standing
    from appliance.network.uplinks import Uplink
    from appliance.network.wireguard.backend import HostFacts
    from appliance.store.inspection import Inspection


@dataclass(frozen=True, slots=True)
class PortFacts:
    """Holds the host's ports, as pairs of IP protocol and port.

    `taken`: has a listener or is reserved. `holders`: the programs that listen on those in the way. `most_flows`: of
    all clients to one address and port, by IP protocol; empty if conntrack may not be read.
    """

    taken: frozenset[tuple[int, int]]
    holders: Mapping[tuple[int, int], tuple[str, ...]]
    most_flows: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Network:
    """Holds the host's network without the tunnel's interface.

    `uplinks`: by IP version, for those with a default route. `has_ipv6`: the kernel supports it.
    `ipv6_off`: it is disabled for new interfaces. `standing`: how a server that looked now would stand on it.
    `routing_fault`: why clients' packets do not pass the host's routing.
    """

    uplinks: Mapping[int, Uplink]
    addresses: tuple[tuple[str, IPv4Interface | IPv6Interface], ...]
    routes: tuple[tuple[str, IPv4Network | IPv6Network], ...]
    has_ipv6: bool
    ipv6_off: bool
    standing: Standing | None = None
    ports: PortFacts | None = None  # None: they could not be read
    routing_fault: str | None = None

    def owns(self, address: IPv4Address | IPv6Address) -> bool:
        return any(interface.ip == address for _, interface in self.addresses)


@dataclass(frozen=True, slots=True)
class UdpPort:
    """Holds who uses the WireGuard port: `holders` are programs, `device` is the port of the tunnel that is up."""

    holders: tuple[str, ...]
    device: int | None


@dataclass(frozen=True, slots=True)
class Firewall:
    """Holds the host's packet filters. `ruleset`: the output of `nft -j list ruleset`; `fault`: why there is none.

    `iptables`: the output of iptables-save by family, if nft does not show all of it. `legacy`: the families that have
    tables of iptables-legacy, with the output of its save, None if that failed. `table`: the appliance's.
    """

    ruleset: str | None
    fault: str | None
    iptables: Mapping[str, str]
    legacy: Mapping[str, str | None]
    table: str = FIRST


@dataclass(frozen=True, slots=True)
class AdmissionFacts:
    """Holds the host's ip rules, the mark noted by the server, and whether the tunnel's egress filter is in place."""

    rules: tuple[PolicyRule, ...]
    mark: Mark | None
    filter_stands: bool


@dataclass(frozen=True, slots=True)
class ForwardingFacts:
    """Holds the forwarding sysctls: (path below /proc/sys, value), the tunnel's own among them once there is a tunnel.

    `writable`: whether they can be set here at all. `found`, `uplinks`, `bridges`: see HostForwarding. `default`:
    the interfaces of a default route.
    """

    sysctls: Mapping[str, str]
    writable: bool | None
    found: Mapping[str, str] = field(default_factory=dict)
    uplinks: frozenset[str] = frozenset()
    default: frozenset[str] = frozenset()
    admission: AdmissionFacts | None = None  # None: they could not be read
    bridges: frozenset[str] = frozenset()

    @property
    def host(self) -> HostForwarding:
        return HostForwarding(self.sysctls, self.found, self.uplinks, bridges=self.bridges)


@dataclass(frozen=True, slots=True)
class Tracking:
    """Holds the size of the host's connection tracking. `wanted`: the limit that its memory allows.

    `changeable`: the limit can be raised here; None: only root can tell.
    """

    size: TableSize
    wanted: int
    changeable: bool | None


@dataclass(frozen=True, slots=True)
class Disk:
    free: int
    total: int
    free_inodes: int | None  # None: the file system does not limit them
    read_only: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """Holds the machine's clock, disk and connection tracking.

    `root`: whether the facts were read as root; without, some are missing.
    """

    root: bool
    now: Moment
    clock_synchronised: bool
    disk: Disk | None
    tracking: Tracking | None = None


@dataclass(frozen=True, slots=True)
class StateFile:
    path: Path
    uid: int
    mode: int  # only the permission bits


@dataclass(frozen=True, slots=True)
class StateFacts:
    """Holds the state directory. `files`: the directory first, then its files; empty if there is no directory.

    `running`: the settings that the server runs with. `running_s`: seconds since it applied them. `standing`: the
    addresses that it uses. `contended`: what other programs keep changing while it runs, in words.
    """

    files: tuple[StateFile, ...]
    served: bool
    running: Mapping[str, str] | None
    running_s: float | None
    store: Inspection | None  # None: there is no store, or it could not be read
    standing: Standing | None = None
    contended: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    settings: Settings
    config_file: Path
    machine: Machine
    state: StateFacts | None  # None: it could not be read
    wireguard: HostFacts
    network: Network
    udp: UdpPort
    forwarding: ForwardingFacts
    firewall: Firewall

    @property
    def in_use(self) -> Standing | None:
        """Returns the addresses that the running server uses; None if none runs, or it is not known."""
        return self.state.standing if self.state is not None and self.state.served else None

    @property
    def dialled(self) -> IPv4Address | IPv6Address | None:
        """Returns the address that clients are told to connect to; None if none is configured or found."""
        if self.in_use is not None:
            return self.in_use.address
        senders = [uplink.address for uplink in self.network.uplinks.values() if uplink.address is not None]
        return self.settings.node.public_ip or next(iter(senders), None)

    @property
    def dialled_version(self) -> int:
        return 4 if self.dialled is None else self.dialled.version
