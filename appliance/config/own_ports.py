"""Names the ports on which the appliance itself listens, or will. Pure."""

from __future__ import annotations

from socket import IPPROTO_TCP, IPPROTO_UDP
from typing import TYPE_CHECKING

from appliance.config.load import HostPort

if TYPE_CHECKING:
    from appliance.config.load import Settings

HIGHEST = 65_535


def own_ports(settings: Settings, *, hub: bool) -> frozenset[tuple[int, int]]:
    """Returns pairs of IP protocol and port. `hub`: this host is one of its fleet, alone or not."""
    listeners = (*settings.api.listen, settings.metrics.listen)
    tcp = {each.port for each in listeners if isinstance(each, HostPort)}
    if hub:
        tcp |= {settings.fleet.listen.port, route_port(settings.fleet.listen.port)}
    return frozenset({*((int(IPPROTO_TCP), port) for port in tcp), (int(IPPROTO_UDP), settings.wireguard.listen_port)})


def route_port(port: int) -> int:
    """Returns the TCP port on which a hub listens for other hubs, where it listens for members on this one."""
    return port + 1 if port < HIGHEST else port - 1
