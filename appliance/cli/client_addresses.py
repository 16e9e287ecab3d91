"""Formats the addresses that clients have in the tunnel."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network


class ClientAddresses:
    """Formats addresses of one subnet by their offsets."""

    def __init__(self, subnet: IPv4Network | IPv6Network) -> None:
        self._first = int(subnet.network_address)
        self._many = subnet.num_addresses
        # Takes a tenth of the time of subnet[offset]. No subnet is in ::/8, where the two write addresses differently.
        self._family = socket.AF_INET if subnet.version == 4 else socket.AF_INET6
        self._size = subnet.max_prefixlen // 8

    def at(self, offset: int) -> str | None:
        """Returns an address; None for an old session whose offset lies outside a subnet changed since."""
        if offset >= self._many:
            return None
        return socket.inet_ntop(self._family, (self._first + offset).to_bytes(self._size))
