"""What a diagnosis knows of the host, the state and the running server. None stands for what could not be seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
    from pathlib import Path

    from appliance.config.load import Settings
    from appliance.domain.clock import Moment
    from appliance.network.interfaces import Uplink
    from appliance.network.wireguard.backend import HostFacts
    from appliance.store.inspection import Inspection


@dataclass(frozen=True, slots=True)
class Network:
    """The tunnel's own interface is left out. `uplinks` by IP version; one that has no default route is not there.

    `has_ipv6`: the kernel does. `ipv6_off`: a new interface begins without it.
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
    """`holders`: the programs that have the port; `device`: the port of the tunnel that is up."""

    holders: tuple[str, ...]
    device: int | None


@dataclass(frozen=True, slots=True)
class Firewall:
    """`ruleset`: what `nft -j list ruleset` printed; `fault`: why it did not.

    `iptables`: what iptables-save printed, by family, where nft does not show all of it. `legacy`: the families with
    tables of iptables-legacy, and what its save printed, None where it could not.
    """

    ruleset: str | None
    fault: str | None
    iptables: Mapping[str, str]
    legacy: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class ForwardingFacts:
    """`sysctls`: (path below /proc/sys, value). `writable`: whether they can be set here at all."""

    sysctls: Mapping[str, str]
    writable: bool | None


@dataclass(frozen=True, slots=True)
class Disk:
    free: int
    total: int
    free_inodes: int | None  # None: a file system without a limit to them
    read_only: bool


@dataclass(frozen=True, slots=True)
class StateFile:
    path: Path
    uid: int
    mode: int  # permission bits alone


@dataclass(frozen=True, slots=True)
class StateFacts:
    """`files`: the directory first, then what there is in it. Empty: there is no directory.

    `running`: the settings that the server runs with; `running_s`: how long ago it took them over.
    """

    files: tuple[StateFile, ...]
    served: bool
    running: Mapping[str, str] | None
    running_s: float | None
    store: Inspection | None  # None: there is no store, or it could not be seen


@dataclass(frozen=True, slots=True)
class Facts:
    settings: Settings
    config_file: Path
    root: bool
    now: Moment
    clock_synchronised: bool
    disk: Disk | None
    state: StateFacts | None  # None: it could not be seen
    wireguard: HostFacts
    network: Network
    udp: UdpPort
    forwarding: ForwardingFacts
    firewall: Firewall

    @property
    def dialled(self) -> IPv4Address | IPv6Address | None:
        """The address that clients are told; None where there is none to be found."""
        senders = [uplink.address for uplink in self.network.uplinks.values() if uplink.address is not None]
        return self.settings.node.public_ip or next(iter(senders), None)

    @property
    def dialled_version(self) -> int:
        return 4 if self.dialled is None else self.dialled.version
