"""Declares the facts a diagnosis uses: of the host, the state and the running server. None: could not be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
    from pathlib import Path

    from appliance.config.load import Settings
    from appliance.domain.clock import Moment
    from appliance.network.admission.mark import Mark
    from appliance.network.admission.policy_rules import PolicyRule
    from appliance.network.interfaces import Uplink
    from appliance.network.wireguard.backend import HostFacts
    from appliance.store.inspection import Inspection


@dataclass(frozen=True, slots=True)
class Network:
    """Holds the host's network without the tunnel's interface.

    `uplinks`: by IP version, for those with a default route. `has_ipv6`: the kernel supports it.
    `ipv6_off`: it is disabled for new interfaces.
    """

    uplinks: Mapping[int, Uplink]
    addresses: tuple[tuple[str, IPv4Interface | IPv6Interface], ...]
    routes: tuple[tuple[str, IPv4Network | IPv6Network], ...]
    has_ipv6: bool
    ipv6_off: bool

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
    tables of iptables-legacy, with the output of its save, None if that failed.
    """

    ruleset: str | None
    fault: str | None
    iptables: Mapping[str, str]
    legacy: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class ForwardingFacts:
    """Holds the forwarding sysctls: (path below /proc/sys, value). `writable`: whether they can be set here at all."""

    sysctls: Mapping[str, str]
    writable: bool | None


@dataclass(frozen=True, slots=True)
class AdmissionFacts:
    """Holds the host's ip rules, the mark noted by the server, and whether the tunnel's egress filter is in place."""

    rules: tuple[PolicyRule, ...]
    mark: Mark | None
    filter_stands: bool


@dataclass(frozen=True, slots=True)
class Disk:
    free: int
    total: int
    free_inodes: int | None  # None: the file system does not limit them
    read_only: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """Holds the machine's clock and disk. `root`: whether the facts were read as root; without, some are missing."""

    root: bool
    now: Moment
    clock_synchronised: bool
    disk: Disk | None


@dataclass(frozen=True, slots=True)
class StateFile:
    path: Path
    uid: int
    mode: int  # only the permission bits


@dataclass(frozen=True, slots=True)
class StateFacts:
    """Holds the state directory. `files`: the directory first, then its files; empty if there is no directory.

    `running`: the settings that the server runs with. `running_s`: seconds since it applied them.
    """

    files: tuple[StateFile, ...]
    served: bool
    running: Mapping[str, str] | None
    running_s: float | None
    store: Inspection | None  # None: there is no store, or it could not be read


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
    admission: AdmissionFacts | None = None  # None: they could not be read

    @property
    def dialled(self) -> IPv4Address | IPv6Address | None:
        """Returns the address that clients are told to connect to; None if none is configured or found."""
        senders = [uplink.address for uplink in self.network.uplinks.values() if uplink.address is not None]
        return self.settings.node.public_ip or next(iter(senders), None)

    @property
    def dialled_version(self) -> int:
        return 4 if self.dialled is None else self.dialled.version
