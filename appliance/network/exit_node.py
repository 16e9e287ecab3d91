"""Describes this exit: what clients are told, and its tunnel's wanted state. Pure, fixed at start."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from appliance.network.lazy_mapping import OnDemand
from appliance.network.reconcile import Desired
from appliance.network.wireguard import client_config, keys
from appliance.network.wireguard.client_config import TunnelFacts
from appliance.network.wireguard.tunnel import Peer, Prefix

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from appliance.config.settings import WireGuardSettings
    from appliance.domain.device import Device
    from appliance.domain.entities import Session

    Address = IPv4Address | IPv6Address
    Endpoint = client_config.Endpoint | client_config.NamedEndpoint


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Holds what a client's configuration file takes from the exit's configuration.

    `endpoint`: an address or a host name; None: the session's `public_ip`.
    """

    endpoint_port: int
    dns: tuple[IPv4Address | IPv6Address, ...]
    keepalive: int
    endpoint: Address | str | None = None

    def endpoint_of(self, public_ip: str) -> Endpoint:
        """Returns what a client dials. `public_ip`: its session's."""
        if isinstance(self.endpoint, str):
            return client_config.NamedEndpoint(self.endpoint, self.endpoint_port)
        return client_config.Endpoint(self.endpoint or ip_address(public_ip), self.endpoint_port)


@dataclass(frozen=True, slots=True)
class Exit:
    """Describes the exit's own side of the tunnel, and what all its clients have in common.

    `mtu`: of the interface and in clients' files; None: what the uplink leaves, and no line in the files.
    """

    interface: str
    private_key: bytes = field(repr=False)
    public_key: bytes
    listen_port: int
    mtu: int | None
    subnet: IPv4Network
    subnet6: IPv6Network | None
    client_settings: ClientSettings

    def addresses(self, offset: int, *, ipv6: bool) -> list[IPv4Address | IPv6Address]:
        """Returns the addresses at an offset in the subnet: IPv4, and IPv6 if requested and configured."""
        addresses: list[IPv4Address | IPv6Address] = [self.subnet[offset]]
        if ipv6 and self.subnet6 is not None:
            addresses.append(self.subnet6[offset])
        return addresses

    def peer(self, session: Session | Device) -> Peer:
        # Asked for each peer that moved, each second: the arithmetic of `addresses` without its objects.
        offset = session.address_offset
        allowed_ips = [Prefix((int(self.subnet.network_address) + offset).to_bytes(4, "big"), 32)]
        if session.ipv6 and self.subnet6 is not None:
            allowed_ips.append(Prefix((int(self.subnet6.network_address) + offset).to_bytes(16, "big"), 128))
        return Peer(session.public_key, frozenset(allowed_ips))

    @property
    def own_prefixes(self) -> frozenset[Prefix]:
        """Returns the interface's addresses: the first of each subnet, with its length."""
        subnets = (self.subnet,) if self.subnet6 is None else (self.subnet, self.subnet6)
        return frozenset(Prefix(subnet[1].packed, subnet.prefixlen) for subnet in subnets)

    def desired(self, sessions: Mapping[bytes, Session | Device], uplink_leaves: int) -> Desired:
        """Returns the exit's wanted state while these, by public key, are to have peers. `uplink_leaves`: as MTU."""
        return Desired(
            interface=self.interface,
            ipv6=self.subnet6 is not None,
            private_key=self.private_key,
            public_key=self.public_key,
            listen_port=self.listen_port,
            mtu=self.mtu or uplink_leaves,
            addresses=self.own_prefixes,
            peers=OnDemand(sessions, lambda key: self.peer(sessions[key])),
            keepalive_s=max(1, self.client_settings.keepalive),
        )

    def client_config(
        self, session: Session, private_key: bytes | None, *, ipv6: bool, dns: Sequence[Address] | None = None
    ) -> str:
        """Returns the wg-quick file for a session; with `private_key` if the server generated the key pair.

        `dns`: the client's own choice; None: the exit's.
        """
        return self.tunnel_of(session, ipv6=ipv6).file(_pair(private_key, session), dns)

    def tunnel_of(self, session: Session, *, ipv6: bool) -> TunnelFacts:
        """Returns what the file of a session says. `ipv6`: whether it was asked for."""
        # Of the session: what its own answers say, whatever the exit's address has become since.
        return self._tunnel(session, self.client_settings.endpoint_of(session.public_ip), ipv6=ipv6)

    def device_config(
        self, device: Device, private_key: bytes | None, endpoint: Endpoint, *, dns: Sequence[Address] | None = None
    ) -> str:
        """Returns the wg-quick file for a device, as `client_config` does."""
        return self.tunnel_of_device(device, endpoint).file(_pair(private_key, device), dns)

    def tunnel_of_device(self, device: Device, endpoint: Endpoint) -> TunnelFacts:
        """Returns what the file of a device says."""
        return self._tunnel(device, endpoint, ipv6=self.ipv6_in_file(device))

    def ipv6_in_file(self, device: Device) -> bool:
        """Tells whether a device's IPv6 goes into the tunnel, beside which it would leave otherwise. Not if it was
        asked for without, where the tunnel has some."""
        return device.ipv6 or self.subnet6 is None

    def _tunnel(self, client: Session | Device, endpoint: Endpoint, *, ipv6: bool) -> TunnelFacts:
        settings = self.client_settings
        return TunnelFacts(
            server_public_key=self.public_key,
            endpoint=endpoint,
            addresses=self.addresses(client.address_offset, ipv6=client.ipv6),
            mtu=self.mtu,
            keepalive=settings.keepalive,
            dns=settings.dns,
            ipv6=ipv6,
        )


def _pair(private_key: bytes | None, client: Session | Device) -> tuple[bytes, bytes] | None:
    return None if private_key is None else (private_key, client.public_key)


def build_exit(wireguard: WireGuardSettings, private_key: bytes) -> Exit:
    """Builds the description of an exit from its configuration and key."""
    return Exit(
        interface=wireguard.interface,
        private_key=private_key,
        public_key=keys.public_key(private_key),
        listen_port=wireguard.listen_port,
        mtu=wireguard.mtu,
        subnet=wireguard.subnet,
        subnet6=wireguard.subnet6,
        client_settings=client_settings(wireguard),
    )


def client_settings(wireguard: WireGuardSettings) -> ClientSettings:
    """Returns what clients' files take from the configuration."""
    return ClientSettings(wireguard.endpoint_port, wireguard.dns, wireguard.keepalive, wireguard.endpoint)


class HeldAddresses(Collection["Address"]):
    """Makes the addresses at these offsets when they are asked for: all of them would take 300 bytes a session.

    `ipv6_of`: by offset, whether it is one of both IP versions.
    """

    def __init__(self, exit_: Exit, ipv6_of: Mapping[int, bool]) -> None:
        self._exit = exit_
        self._ipv6_of = ipv6_of

    def __contains__(self, address: object) -> bool:
        for subnet, held in ((self._exit.subnet, True), (self._exit.subnet6, False)):
            if isinstance(address, IPv4Address | IPv6Address) and subnet is not None and address in subnet:
                offset = int(address) - int(subnet.network_address)
                return self._ipv6_of.get(offset, False) or (held and offset in self._ipv6_of)
        return False

    def __iter__(self) -> Iterator[Address]:
        for offset, ipv6 in self._ipv6_of.items():
            yield from self._exit.addresses(offset, ipv6=ipv6)

    def __len__(self) -> int:
        return sum(1 for _ in self)
