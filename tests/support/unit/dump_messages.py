"""Builds netlink messages as the kernel writes them: linux/netlink.h, linux/genetlink.h, linux/wireguard.h."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network

FAMILY, SEQ, PORT = 31, 77, 4242
NLMSG_NOOP, NLMSG_ERROR, NLMSG_DONE = 1, 2, 3
NLM_F_MULTI, NLM_F_DUMP_INTR = 0x2, 0x10
NLA_F_NESTED = 0x8000
DEVICE_PRIVATE_KEY, DEVICE_PUBLIC_KEY = b"\xa1" * 32, b"\xb2" * 32
PRESHARED_KEY = b"\xc3" * 32


def attr(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def nest(kind: int, *parts: bytes) -> bytes:
    return attr(kind | NLA_F_NESTED, b"".join(parts))


def message(kind: int, payload: bytes, flags: int = NLM_F_MULTI, seq: int = SEQ, port: int = PORT) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, seq, port) + payload


def device_attrs(**changed: bytes) -> bytes:
    """What the kernel says of the device before its peers; an empty value leaves an attribute out."""
    attrs = {
        "listen_port": attr(6, struct.pack("=H", 51820)),
        "fwmark": attr(7, struct.pack("=I", 5)),
        "ifindex": attr(1, struct.pack("=I", 9)),
        "ifname": attr(2, b"wga0\0"),
        "private_key": attr(3, DEVICE_PRIVATE_KEY),
        "public_key": attr(4, DEVICE_PUBLIC_KEY),
    }
    return b"".join((attrs | changed).values())


def device(attrs: bytes, *peers: bytes, flags: int = NLM_F_MULTI, seq: int = SEQ, port: int = PORT) -> bytes:
    payload = struct.pack("=BBH", 0, 1, 0) + attrs + nest(8, *peers)
    return message(FAMILY, payload, flags, seq, port)


def done(error: int = 0, flags: int = NLM_F_MULTI) -> bytes:
    return message(NLMSG_DONE, struct.pack("=i", error), flags)


def key(number: int) -> bytes:
    return struct.pack(">I", number) * 8


def allowed_ip(text: str) -> bytes:
    network = ip_network(text)
    family = 2 if network.version == 4 else 10
    return nest(
        0,
        attr(3, bytes([network.prefixlen])),
        attr(1, struct.pack("=H", family)),
        attr(2, network.network_address.packed),
    )


def socket_address(host: str, port: int, scope_id: int = 0) -> bytes:
    """struct sockaddr_in or sockaddr_in6."""
    address = ip_address(host)
    if address.version == 4:
        return struct.pack("=H", 2) + struct.pack("!H4s8x", port, address.packed)
    return struct.pack("=H", 10) + struct.pack("!H4x16s", port, address.packed) + struct.pack("=I", scope_id)


def peer_attrs(number: int = 1, allowed_ips: bytes = b"", **changed: bytes) -> bytes:
    """A peer at its first appearance, in the kernel's order, with its alignment padding before the counters."""
    attrs = {
        "public_key": attr(1, key(number)),
        "preshared_key": attr(2, PRESHARED_KEY),
        "handshake": attr(6, struct.pack("=qq", 1_700_000_000 + number, 5)),
        "keepalive": attr(5, struct.pack("=H", 25)),
        "pad": attr(0, b""),
        "tx": attr(8, struct.pack("=Q", 2000 + number)),
        "rx": attr(7, struct.pack("=Q", 1000 + number)),
        "version": attr(10, struct.pack("=I", 1)),
        "endpoint": attr(4, socket_address("2001:db8::9", 1 + number % 65535)),
        "allowed_ips": nest(9, allowed_ips) if allowed_ips else b"",
    }
    return b"".join((attrs | changed).values())


def peer(number: int, *allowed_ips: str) -> bytes:
    return nest(0, peer_attrs(number, b"".join(map(allowed_ip, allowed_ips))))


def continuation(number: int, *allowed_ips: str) -> bytes:
    return nest(0, attr(1, key(number)), nest(9, *map(allowed_ip, allowed_ips)))
