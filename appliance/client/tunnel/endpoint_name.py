"""Resolves the name of an exit once for each session; wg(8) would do so again and again, without end."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

from appliance.client.api.deadline import within
from appliance.client.tunnel.wg_config import check_host
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from appliance.client.tunnel.wg_config import IPAddress

RESOLVING_S = 10.0


def resolved(name: str) -> IPAddress:
    """Returns the name's first address, in this host's order (RFC 6724). Raises HostError if it has none in time."""
    try:
        found = within(
            RESOLVING_S,
            lambda: socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM, flags=socket.AI_ADDRCONFIG),
            lambda: None,
        )
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise HostError(f"the exit's endpoint {name} cannot be resolved: {reason}") from error
    return check_host(ip_address(str(found[0][4][0]).partition("%")[0]))
