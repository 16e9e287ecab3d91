"""Tells an operator's command whose the interface of the configured name is. Blocking."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.clock import HostClock
from appliance.domain.errors import HostError, TunnelError
from appliance.network.wireguard import ownership
from appliance.network.wireguard.backend import existing_device
from appliance.network.wireguard.owned_device import random_ports
from appliance.network.wireguard.ownership import OwnMarks
from appliance.network.wireguard.tunnel import Prefix
from appliance.store.server_keys import ServerKeys

if TYPE_CHECKING:
    from appliance.config.settings import Settings
    from appliance.store.state_dir import StateDir


def foreign(settings: Settings, state: StateDir) -> str | None:
    """Returns what shows that the WireGuard interface is another program's; None: it is ours, or cannot be read."""
    tunnel = settings.wireguard
    subnets = (subnet for subnet in (tunnel.subnet, tunnel.subnet6) if subnet is not None)
    addresses = frozenset(Prefix(subnet[1].packed, subnet.prefixlen) for subnet in subnets)
    public_keys = ServerKeys(state, HostClock().now().boot_id).public_keys()
    own = OwnMarks(public_keys, tunnel.listen_port, addresses)
    try:
        with existing_device(tunnel.interface) as device:
            if (link := device.link()) is None:
                return None
            return ownership.foreign(link, device.dump(), own, random_ports(device.backend, link))
    except (HostError, TunnelError):
        return None
