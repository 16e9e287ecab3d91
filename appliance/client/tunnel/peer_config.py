"""Encodes a client's side of a tunnel as requests to its device: the private key, and one peer with an endpoint. Pure.

The server's own requests set neither an endpoint nor a keepalive: an exit never initiates a handshake.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError, InvalidRequest
from appliance.network.netlink import constants
from appliance.network.netlink.codec import attribute, nest
from appliance.network.wireguard import keys
from appliance.network.wireguard.client_config import Endpoint
from appliance.network.wireguard.encode import device_body
from appliance.network.wireguard.tunnel import DeviceChange, Prefix
from appliance.network.wireguard.uapi import END

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.network.wireguard.client_config import IPAddress

MTU = 1420  # if the file has none: wg-quick's choice over Ethernet
KEEPALIVE_S = 25  # also makes the device start a handshake with a new peer at once
EVERYTHING = ((socket.AF_INET, bytes(4)), (socket.AF_INET6, bytes(16)))  # both /0


@dataclass(frozen=True, slots=True)
class Offer:
    """The values of a session's wg-quick file that a device needs. `addresses`: single hosts, /32 and /128."""

    addresses: tuple[Prefix, ...]
    mtu: int
    server_key: bytes
    endpoint: Endpoint


def read_offer(wg_config: str) -> Offer:
    """Parses a session's wg-quick file. Raises HostError: if the text is not what the API sends."""
    lines = (line.partition(" = ") for line in wg_config.splitlines() if not line.startswith("#"))
    values: Mapping[str, str] = {name: value for name, _, value in lines}
    try:
        interfaces = [ip_interface(text) for text in values["Address"].split(", ")]
        server_key = keys.parse_public_key(values["PublicKey"], "PublicKey")
        addresses = tuple(Prefix(i.packed, i.network.prefixlen) for i in interfaces)
        host, _, port = values["Endpoint"].rpartition(":")
        endpoint = Endpoint(ip_address(host.strip("[]")), _number(port))
        return Offer(addresses, _number(values.get("MTU", str(MTU))), server_key, endpoint)
    except (KeyError, ValueError, InvalidRequest) as error:
        raise HostError(f"the session's wg_config is not one: {error}") from error


def _number(text: str) -> int:
    """Parses a port or an MTU. Raises ValueError: if it is not a number from 1 to 65535."""
    if not 1 <= (number := int(text)) <= 65535:
        raise ValueError(f"{text} is out of range")
    return number


def has_ipv6(wg_config: str) -> bool:
    return any(len(prefix.address) == 16 for prefix in read_offer(wg_config).addresses)


@dataclass(frozen=True, slots=True)
class Call:
    """The server as the device's only peer, for all traffic. `private_key`: None keeps the device's key."""

    private_key: bytes | None = field(repr=False)
    server_key: bytes
    host: IPAddress
    port: int


def kernel_body(interface: str, call: Call) -> bytes:
    """Returns the body of WG_CMD_SET_DEVICE (linux/wireguard.h) that replaces all peers.

    A new peer with a keepalive starts a handshake at once; a peer that is kept would go on with the keys of a session
    that has ended.
    """
    everything = (
        nest(
            0,
            attribute(constants.WGALLOWEDIP_A_FAMILY, struct.pack("=H", family)),
            attribute(constants.WGALLOWEDIP_A_IPADDR, address),
            attribute(constants.WGALLOWEDIP_A_CIDR_MASK, struct.pack("=B", 0)),
        )
        for family, address in EVERYTHING
    )
    peer = nest(
        0,
        attribute(constants.WGPEER_A_PUBLIC_KEY, call.server_key),
        attribute(constants.WGPEER_A_ENDPOINT, _socket_address(call)),
        attribute(constants.WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, struct.pack("=H", KEEPALIVE_S)),
        nest(constants.WGPEER_A_ALLOWEDIPS, *everything),
    )
    alone = attribute(constants.WGDEVICE_A_FLAGS, struct.pack("=I", constants.WGDEVICE_F_REPLACE_PEERS))
    own = device_body(interface, DeviceChange(private_key=call.private_key))
    return own + alone + nest(constants.WGDEVICE_A_PEERS, peer)


def _socket_address(call: Call) -> bytes:
    """Encodes an endpoint: the family in host order, the rest in network order. sockaddr_in, ip(7): padded to 16
    bytes; sockaddr_in6, ipv6(7): flow label and scope are 0."""
    if call.host.version == 4:
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", call.port, call.host.packed)
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!H4x16s4x", call.port, call.host.packed)


def xplatform_request(call: Call) -> bytes:
    lines = (
        "set=1",
        *(() if call.private_key is None else (f"private_key={call.private_key.hex()}",)),
        "replace_peers=true",
        f"public_key={call.server_key.hex()}",
        f"endpoint={Endpoint(call.host, call.port)}",
        f"persistent_keepalive_interval={KEEPALIVE_S}",
        "allowed_ip=0.0.0.0/0",
        "allowed_ip=::/0",
    )
    return "\n".join(lines).encode("ascii") + END
