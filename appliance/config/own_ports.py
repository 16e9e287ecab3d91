"""Names the ports on which the appliance itself listens, or will. Pure."""

from __future__ import annotations

from socket import IPPROTO_TCP, IPPROTO_UDP
from typing import TYPE_CHECKING

from appliance.config.load import HostPort

if TYPE_CHECKING:
    from appliance.config.load import Settings


def own_ports(settings: Settings, *, hub: bool) -> frozenset[tuple[int, int]]:
    """Returns pairs of IP protocol and port. `hub`: this host is one of its fleet."""
    listeners = (*settings.api.listen, settings.metrics.listen, *((settings.fleet.listen,) if hub else ()))
    tcp = {(int(IPPROTO_TCP), each.port) for each in listeners if isinstance(each, HostPort)}
    return frozenset({*tcp, (int(IPPROTO_UDP), settings.wireguard.listen_port)})
