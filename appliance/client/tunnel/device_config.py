"""Reads from a session's wg-quick file what a client's device needs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError, InvalidRequest
from appliance.network.wireguard import keys
from appliance.network.wireguard.client_config import Endpoint
from appliance.network.wireguard.tunnel import Prefix, RemotePeer

if TYPE_CHECKING:
    from collections.abc import Mapping

KEEPALIVE_S = 25


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """Holds the values of a session's wg-quick file that a device needs. `addresses`: single hosts, /32 and /128.

    `mtu` None: the file has none, so that it is fitted to this machine's line.
    """

    addresses: tuple[Prefix, ...]
    mtu: int | None
    server: RemotePeer


def read_device_config(wg_config: str) -> DeviceConfig:
    """Parses a session's wg-quick file. Raises HostError if the text is not what the API sends."""
    lines = (line.partition(" = ") for line in wg_config.splitlines() if not line.startswith("#"))
    values: Mapping[str, str] = {name: value for name, _, value in lines}
    try:
        interfaces = [ip_interface(text) for text in values["Address"].split(", ")]
        server_key = keys.parse_public_key(values["PublicKey"], "PublicKey")
        addresses = tuple(Prefix(i.packed, i.network.prefixlen) for i in interfaces)
        host, _, port = values["Endpoint"].rpartition(":")
        endpoint = Endpoint(ip_address(host.strip("[]")), _number(port))
        mtu = _number(values["MTU"]) if "MTU" in values else None
        return DeviceConfig(addresses, mtu, RemotePeer(server_key, endpoint, KEEPALIVE_S))
    except (KeyError, ValueError, InvalidRequest) as error:
        raise HostError(f"the session's wg_config is invalid: {error}") from error


def _number(text: str) -> int:
    """Parses a port or an MTU. Raises ValueError if it is not a number from 1 to 65535."""
    if not 1 <= (number := int(text)) <= 65535:
        raise ValueError(f"{text} is out of range")
    return number


def has_ipv6(wg_config: str) -> bool:
    return any(len(prefix.address) == 16 for prefix in read_device_config(wg_config).addresses)
