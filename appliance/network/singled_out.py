"""Finds the clients' addresses that routes and policy rules of a host single out. Pure: bytes in, addresses out.

A route or rule for a part of the tunnel's subnet concerns the clients in it alone. Whether it takes their packets
elsewhere is the kernel's to say, for one address of each such part.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from appliance.network.netlink import constants
from appliance.network.netlink.codec import attributes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from ipaddress import IPv4Network, IPv6Network

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network

MOST = 64  # of addresses to ask the kernel about
FIRST_CLIENT = 2  # offset in the subnet; before it are the subnet's own address and the exit's
# linux/fib_rules.h, struct fib_rule_hdr: family, lengths of destination and source; linux/rtnetlink.h, struct rtmsg:
# family, length of destination. Both have 12 bytes.
_LENGTHS = struct.Struct("=BBB9x")


def by_routes(routes: Iterable[bytes], subnet: Network) -> Iterator[Address]:
    """Returns an address for each route of a part of the subnet, as the kernel lists routes of all tables."""
    for payload in routes:
        length = _LENGTHS.unpack_from(payload)[1]
        yield from _client(dict(attributes(payload[_LENGTHS.size :])).get(constants.RTA_DST), length, subnet)


def by_rules(rules: Iterable[bytes], subnet: Network) -> Iterator[Address]:
    """Returns an address for each policy rule that is for packets from or to a part of the subnet."""
    for payload in rules:
        _, to_length, from_length = _LENGTHS.unpack_from(payload)
        has = dict(attributes(payload[_LENGTHS.size :]))
        yield from _client(has.get(constants.FRA_DST), to_length, subnet)
        yield from _client(has.get(constants.FRA_SRC), from_length, subnet)


def _client(packed: bytes | None, length: int, subnet: Network) -> Iterator[Address]:
    if packed is None or len(packed) != subnet.max_prefixlen // 8 or length <= subnet.prefixlen:
        return
    address = ip_address(packed)
    offset = int(address) - int(subnet.network_address)
    if length < subnet.max_prefixlen:
        offset = max(offset, FIRST_CLIENT)
        address = subnet[offset] if offset < subnet.num_addresses else address
    if FIRST_CLIENT <= offset < subnet.num_addresses and address != subnet.broadcast_address:
        yield address
