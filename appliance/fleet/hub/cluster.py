"""Says how three hubs or more form one cluster of nats-servers, and how often it keeps what it keeps. Pure.

Two never form one: where one of two is lost, the other has no majority, and takes nothing any more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.config.own_ports import route_port
from appliance.domain.fleet_member import LEAST_HUBS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.fleet.membership.identity import HubAddress

COPIES = 3  # of a stream or bucket, however many hubs there are: one of them may be lost
ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Holds what the hub's nats-server is to know of the others. `listen`, `dialled`, `routes`: HOST:PORT.

    `dialled`: by the others. Whoever has a certificate of the authority may be a server of the cluster: hubs alone
    have one.
    """

    name: str
    listen: str
    dialled: str
    routes: tuple[str, ...]


def cluster_of(name: str, server_name: str, listen: str, hubs: Iterable[HubAddress]) -> Cluster | None:
    """Returns the cluster of the hub with this name in its certificate; None: there are too few for one.

    `listen`: HOST:PORT for members. Hubs dial each other at the port beside that. `hubs`: those alone whose servers
    run, and no standby. Raises ValueError for an address that is none.
    """
    others = {each.server_name: each.address for each in hubs}
    own = others.pop(server_name, listen)
    if 1 + len(others) < LEAST_HUBS:
        return None
    return Cluster(name, _route(listen), _route(own), tuple(sorted(map(_route, others.values()))))


def host_of(address: str) -> str:
    """Returns the host of HOST:PORT, as its certificate is to name it. Raises ValueError."""
    return _parts(address)[0].strip("[]")


def _route(address: str) -> str:
    host, port = _parts(address)
    return f"{host}:{route_port(port)}"


def _parts(address: str) -> tuple[str, int]:
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise ValueError(f"{address!r} is not the address of a hub: HOST:PORT")
    return found[1], int(found[2])
