"""Reads WG_CMD_SET_DEVICE requests as the kernel does: linux/netlink.h, linux/wireguard.h."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from appliance.network.netlink import constants
from appliance.network.wireguard.tunnel import Prefix

if TYPE_CHECKING:
    from collections.abc import Iterator


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type without flags, payload); every length and padding is checked."""
    while data:
        length, kind = struct.unpack_from("=HH", data)
        assert 4 <= length <= len(data)
        padded = (length + 3) & ~3
        assert not any(data[length:padded])
        yield kind & constants.NLA_TYPE_MASK, data[4:length]
        data = data[padded:]


def entries(body: bytes) -> list[tuple[bytes, int, list[Prefix]]]:
    """(public key, flags, allowed-ips) of each peer entry in a WG_CMD_SET_DEVICE body."""
    device = dict(attributes(body))
    assert device[constants.WGDEVICE_A_IFNAME] == b"wga0\0"
    return [_entry(dict(attributes(peer))) for _, peer in attributes(device[constants.WGDEVICE_A_PEERS])]


def _entry(peer: dict[int, bytes]) -> tuple[bytes, int, list[Prefix]]:
    assert peer.keys() <= {constants.WGPEER_A_PUBLIC_KEY, constants.WGPEER_A_FLAGS, constants.WGPEER_A_ALLOWEDIPS}
    prefixes = [_prefix(dict(attributes(each))) for _, each in attributes(peer.get(constants.WGPEER_A_ALLOWEDIPS, b""))]
    return peer[constants.WGPEER_A_PUBLIC_KEY], struct.unpack("=I", peer[constants.WGPEER_A_FLAGS])[0], prefixes


def _prefix(allowed_ip: dict[int, bytes]) -> Prefix:
    (family,) = struct.unpack("=H", allowed_ip[constants.WGALLOWEDIP_A_FAMILY])
    address = allowed_ip[constants.WGALLOWEDIP_A_IPADDR]
    assert (family, len(address)) in ((2, 4), (10, 16))  # AF_INET, AF_INET6
    return Prefix(address, allowed_ip[constants.WGALLOWEDIP_A_CIDR_MASK][0])
