"""Derives what a client's device is told from a session's config. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError
from appliance.network.wireguard.client_config import Endpoint
from appliance.network.wireguard.tunnel import Prefix, RemotePeer

if TYPE_CHECKING:
    from appliance.client.tunnel.wg_config import SessionConfig


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """Holds the values of a session's config that a device needs. `addresses`: single hosts, /32 and /128.

    `mtu` None: the config has none, so that it is fitted to this machine's line.
    """

    addresses: tuple[Prefix, ...]
    mtu: int | None
    server: RemotePeer


def device_config(config: SessionConfig) -> DeviceConfig:
    """Returns the device's part of a config whose host is an address. Raises HostError if it is a name still."""
    if isinstance(config.host, str):
        raise HostError(f"the exit's name {config.host} has not been resolved")
    addresses = tuple(Prefix(each.packed, each.max_prefixlen) for each in config.addresses)
    server = RemotePeer(config.server_key, Endpoint(config.host, config.port), config.keepalive)
    return DeviceConfig(addresses, config.mtu, server)
