"""Counts the connections of each client as conntrack holds them, and those begun within a second. Blocking."""

from __future__ import annotations

import errno
import time
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError
from appliance.network.firewall import conntrack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network

LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class FlowCount:
    """Counts one address's connections: `held` now, `opened` of them a second."""

    held: int
    opened: float


def count(subnets: Sequence[Network], look_s: float = LOOK_S) -> Mapping[Address, FlowCount]:
    """Returns the connections that each address of these subnets has begun; it takes `look_s` and the time to read.

    Raises HostError if conntrack cannot be read.
    """
    try:
        before, began = _names(subnets), time.monotonic()
        time.sleep(look_s)
        after, took = _names(subnets), time.monotonic() - began
    except OSError as error:
        may_not = "only root may read them" if error.errno == errno.EPERM else f"conntrack: {error.strerror}"
        raise HostError(f"connections cannot be counted: {may_not}") from error
    held = Counter(source for source, _ in after)
    opened = Counter(source for source, _ in after - before)
    return {ip_address(source): FlowCount(many, opened[source] / took) for source, many in held.items()}


def _names(subnets: Sequence[Network]) -> set[tuple[bytes, bytes]]:
    """Returns source and name of each connection that was begun from one of the subnets."""
    return {(entry.source, entry.name) for entry in conntrack.begun_from(subnets)}
