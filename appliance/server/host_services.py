"""Describes which services of the host clients reach from inside the tunnel, and which never. May resolve names."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from itertools import chain
from typing import TYPE_CHECKING

from appliance.config.load import HostPort
from appliance.config.value_types import ALL
from appliance.network import sockets
from appliance.network.firewall.rules import HostService, HostServices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.config.load import Settings, UnixPath

PROXY = tuple(HostService(everywhere, 443) for everywhere in (IPv4Address(0), IPv6Address(0)))


def host_services(settings: Settings) -> HostServices:
    """Returns the API and, if configured, a reverse proxy before it as open, the metrics as closed.

    What listens on loopback, or on a Unix socket, is not reachable from the tunnel. Addresses that may change while
    these stay are left out: the public one, and what a host name that clients dial resolves to. Raises HostError if the
    name of a listener cannot be resolved.
    """
    api, endpoint = settings.api, settings.wireguard.endpoint
    return HostServices(
        open=(*chain.from_iterable(map(_reachable, api.listen)), *(PROXY if api.proxy_in_tunnel else ())),
        endpoints=() if endpoint is None or isinstance(endpoint, str) else (endpoint,),
        closed=tuple(_reachable(settings.metrics.listen)),
    )


def _reachable(where: HostPort | UnixPath | None) -> Iterator[HostService]:
    if isinstance(where, HostPort):
        address = sockets.address_of(where)
        if not address.is_loopback:
            yield HostService(address, where.port)
        if where.host == ALL:
            yield HostService(IPv4Address(0), where.port)
