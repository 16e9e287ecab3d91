"""Writes a client's configuration file in the format of wg-quick(8). Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.network.wireguard.keys import encode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Address, IPv6Address

    IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Endpoint:
    host: IPAddress
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.host.version == 6 else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class NamedEndpoint:
    """Names where clients dial by a host name, which each client resolves."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Returns the file's text. `key_pair` is (private, public) if server-generated; else the client adds PrivateKey.

    `mtu` None omits the line: wg-quick and the apps then fit it to their own line. `ipv6` false omits IPv6 entirely:
    wg-quick fails on a host with IPv6 disabled.
    """

    key_pair: tuple[bytes, bytes] | None = field(repr=False)
    addresses: Sequence[IPAddress]
    mtu: int | None
    dns: Sequence[IPAddress]
    server_public_key: bytes
    endpoint: Endpoint | NamedEndpoint
    keepalive: int
    ipv6: bool


@dataclass(frozen=True, slots=True)
class TunnelFacts:
    """Holds what a client's file says of its tunnel, whichever exit writes it; `file` adds what only the client's API
    knows: the keys, and the client's own choice of resolvers.

    `addresses`: the client's. `dns`: the operator's. `ipv6`: whether its IPv6 goes into the tunnel.
    """

    server_public_key: bytes
    endpoint: Endpoint | NamedEndpoint
    addresses: Sequence[IPAddress]
    mtu: int | None
    keepalive: int
    dns: Sequence[IPAddress]
    ipv6: bool

    def file(self, key_pair: tuple[bytes, bytes] | None, dns: Sequence[IPAddress] | None = None) -> str:
        """Returns the file. `key_pair`: as in ClientConfig; `dns` None: the operator's."""
        return render(
            ClientConfig(
                key_pair=key_pair,
                addresses=self.addresses,
                mtu=self.mtu,
                dns=self.dns if dns is None else dns,
                server_public_key=self.server_public_key,
                endpoint=self.endpoint,
                keepalive=self.keepalive,
                ipv6=self.ipv6,
            )
        )


def render(config: ClientConfig) -> str:
    lines = ["[Interface]"]
    if config.key_pair is not None:
        private, public = config.key_pair
        lines += [f"PrivateKey = {encode(private)}", f"# PublicKey = {encode(public)}"]
    lines.append(f"Address = {', '.join(f'{a}/{a.max_prefixlen}' for a in config.addresses)}")
    if config.mtu is not None:
        lines.append(f"MTU = {config.mtu}")
    dns = [str(a) for a in config.dns if config.ipv6 or a.version == 4]
    if dns:
        lines.append(f"DNS = {', '.join(dns)}")
    lines += ["", "[Peer]", f"PublicKey = {encode(config.server_public_key)}", f"Endpoint = {config.endpoint}"]
    lines.append("AllowedIPs = 0.0.0.0/0, ::/0" if config.ipv6 else "AllowedIPs = 0.0.0.0/0")
    lines.append(f"PersistentKeepalive = {config.keepalive}")
    return "\n".join(lines) + "\n"
