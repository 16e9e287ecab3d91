"""Writes WireGuard's generic-netlink requests as bytes (linux/wireguard.h); no sockets here."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from appliance.network.netlink import constants
from appliance.network.netlink.codec import attribute, nest
from appliance.network.wireguard.tunnel import DeviceChange, Prefix, PutPeer, SocketAddress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from appliance.network.wireguard.tunnel import Peer, PeerChange, RemotePeer

# Bytes of peers in one message. Half of what a nest could hold: the kernel copies a request into one contiguous
# buffer, and smaller ones are easier to allocate.
PEERS_LIMIT = 32 * 1024
# 256 IPv6 allowed-ips take 10 KiB, so an entry always fits beside the message's other attributes.
ALLOWED_IPS_PER_ENTRY = 256
EVERYTHING = (Prefix(bytes(4), 0), Prefix(bytes(16), 0))


class PeerEntry(NamedTuple):
    """Holds the parts of a change that must share a message: the peer's removal and its addition, or one of the two."""

    public_key: bytes
    removal: bytes
    put: bytes

    @property
    def size(self) -> int:
        return len(self.removal) + len(self.put)


def interface(name: str) -> bytes:
    """Writes the attribute that names the device; it is the whole body of WG_CMD_GET_DEVICE."""
    return attribute(constants.WGDEVICE_A_IFNAME, name.encode() + b"\0")


def device_body(name: str, change: DeviceChange) -> bytes:
    """Writes the body of WG_CMD_SET_DEVICE that changes the device's own settings."""
    body = interface(name)
    if change.private_key is not None:
        body += attribute(constants.WGDEVICE_A_PRIVATE_KEY, _key(change.private_key))
    if change.listen_port is not None:
        body += attribute(constants.WGDEVICE_A_LISTEN_PORT, struct.pack("=H", change.listen_port))
    return body


def peers_body(name: str, entries: Iterable[PeerEntry], *, again: bool = False) -> bytes:
    """Writes the body of WG_CMD_SET_DEVICE for the entries of one message.

    `again`: repeats entries that were applied already, and therefore omits removals.
    """
    peers = (entry.put if again else entry.removal + entry.put for entry in entries)
    return interface(name) + nest(constants.WGDEVICE_A_PEERS, *peers)


def dial_body(name: str, remote: RemotePeer, private_key: bytes | None) -> bytes:
    """Writes the body of WG_CMD_SET_DEVICE that replaces all peers by one, which all traffic goes to."""
    flags = attribute(constants.WGDEVICE_A_FLAGS, struct.pack("=I", constants.WGDEVICE_F_REPLACE_PEERS))
    peer = _peer(
        remote.public_key,
        constants.WGPEER_F_REPLACE_ALLOWEDIPS,
        _endpoint(SocketAddress(remote.endpoint.host.packed, remote.endpoint.port)),
        _keepalive(remote.keepalive_s),
        nest(constants.WGPEER_A_ALLOWEDIPS, *map(_allowed_ip, EVERYTHING)),
    )
    return device_body(name, DeviceChange(private_key=private_key)) + flags + nest(constants.WGDEVICE_A_PEERS, peer)


def peer_entries(changes: Iterable[PeerChange]) -> Iterator[list[PeerEntry]]:
    """Divides the changes, in order, into as few messages as hold them."""
    message: list[PeerEntry] = []
    size = 0
    for change in changes:
        for entry in _entries(change):
            if message and size + entry.size > PEERS_LIMIT:
                yield message
                message, size = [], 0
            message.append(entry)
            size += entry.size
    if message:
        yield message


def _entries(change: PeerChange) -> Iterator[PeerEntry]:
    key = change.public_key
    if not isinstance(change, PutPeer):
        yield PeerEntry(key, _peer(key, constants.WGPEER_F_REMOVE_ME), b"")
        return
    removal = _peer(key, constants.WGPEER_F_REMOVE_ME) if change.fresh else b""
    first, *rest = _allowed_ips(change.peer)
    sent_to = () if change.endpoint is None else (_endpoint(change.endpoint),)
    kept = () if change.keepalive_s is None else (_keepalive(change.keepalive_s),)
    yield PeerEntry(key, removal, _peer(key, constants.WGPEER_F_REPLACE_ALLOWEDIPS, first, *sent_to, *kept))
    for more in rest:
        # Adds to the peer of the first entry, and must not re-create one that was removed in between.
        yield PeerEntry(key, b"", _peer(key, constants.WGPEER_F_UPDATE_ONLY, more))


def _peer(public_key: bytes, flags: int, *attributes: bytes) -> bytes:
    return nest(
        0,
        attribute(constants.WGPEER_A_PUBLIC_KEY, _key(public_key)),
        attribute(constants.WGPEER_A_FLAGS, struct.pack("=I", flags)),
        *attributes,
    )


def _allowed_ips(peer: Peer) -> list[bytes]:
    """Writes WGPEER_A_ALLOWEDIPS nests, at least one. Sorts, so that equal changes are equal bytes."""
    prefixes = sorted(peer.allowed_ips)
    starts = range(0, max(len(prefixes), 1), ALLOWED_IPS_PER_ENTRY)
    return [
        nest(constants.WGPEER_A_ALLOWEDIPS, *map(_allowed_ip, prefixes[start : start + ALLOWED_IPS_PER_ENTRY]))
        for start in starts
    ]


def _allowed_ip(prefix: Prefix) -> bytes:
    family = socket.AF_INET if len(prefix.address) == 4 else socket.AF_INET6
    return nest(
        0,
        attribute(constants.WGALLOWEDIP_A_FAMILY, struct.pack("=H", family)),
        attribute(constants.WGALLOWEDIP_A_IPADDR, prefix.address),
        attribute(constants.WGALLOWEDIP_A_CIDR_MASK, struct.pack("=B", prefix.length)),
    )


def _keepalive(seconds: int) -> bytes:
    return attribute(constants.WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, struct.pack("=H", seconds))


def _endpoint(endpoint: SocketAddress) -> bytes:
    """Writes the family and the scope in host order and the rest in network order.

    sockaddr_in, ip(7): padded to 16 bytes; sockaddr_in6, ipv6(7): the flow label is 0.
    """
    if len(endpoint.address) == 4:
        address = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", endpoint.port, endpoint.address)
    else:
        address = struct.pack("=H", socket.AF_INET6) + struct.pack("!H4x16s", endpoint.port, endpoint.address)
        address += struct.pack("=I", endpoint.scope_id)
    return attribute(constants.WGPEER_A_ENDPOINT, address)


def _key(key: bytes) -> bytes:
    if len(key) != constants.WG_KEY_LEN:
        raise ValueError(f"a WireGuard key is {constants.WG_KEY_LEN} bytes, not {len(key)}")
    return key
