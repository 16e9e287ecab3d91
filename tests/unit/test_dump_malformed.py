"""Dumps that break the protocol, one rule each: all of them are refused."""

from __future__ import annotations

import struct

import pytest

from appliance.domain.errors import MalformedDump
from appliance.network.wireguard.parse import DumpParser
from tests.support.unit.dump_messages import (
    FAMILY,
    NLMSG_DONE,
    NLMSG_ERROR,
    PORT,
    SEQ,
    attr,
    continuation,
    device,
    device_attrs,
    done,
    key,
    message,
    nest,
    peer,
    peer_attrs,
    socket_address,
)


def a_dump_with(peer: bytes) -> bytes:
    return device(device_attrs(), nest(0, peer)) + done()


def an_ip(family: int, address: bytes, length: int) -> bytes:
    return nest(0, attr(1, struct.pack("=H", family)), attr(2, address), attr(3, bytes([length])))


def handshake(sec: int, nsec: int) -> bytes:
    return a_dump_with(peer_attrs(handshake=attr(6, struct.pack("=qq", sec, nsec))))


MALFORMED = {
    "nothing": b"",
    "less than a message": bytes(15),
    "a message shorter than its header": struct.pack("=IHHII", 15, FAMILY, 0, SEQ, PORT),
    "a message longer than the buffer": struct.pack("=IHHII", 17, FAMILY, 0, SEQ, PORT),
    "no generic netlink header": message(FAMILY, b"\0\1"),
    "another command": message(FAMILY, struct.pack("=BBH", 1, 1, 0) + device_attrs()) + done(),
    "another family": message(FAMILY + 1, struct.pack("=BBH", 0, 1, 0) + device_attrs()) + done(),
    "done before the device": done(),
    "done without an ifindex": device(device_attrs(ifindex=b"")) + done(),
    "done without a listen port": device(device_attrs(listen_port=b"")) + done(),
    "a short errno in done": device(device_attrs()) + message(NLMSG_DONE, b"\0\0"),
    "a positive errno in done": device(device_attrs()) + done(5),
    "an error without an errno": message(NLMSG_ERROR, b""),
    "an errno beyond the kernel's": message(NLMSG_ERROR, struct.pack("=i", -4096)),
    "ifindex of 2 bytes": device(device_attrs(ifindex=attr(1, b"\1\0"))) + done(),
    "ifindex twice": device(device_attrs() + attr(1, b"\1\0\0\0")) + done(),
    "listen port of 4 bytes": device(device_attrs(listen_port=attr(6, bytes(4)))) + done(),
    "device key of 31 bytes": device(device_attrs(public_key=attr(4, bytes(31)))) + done(),
    "private key of 33 bytes": device(device_attrs(private_key=attr(3, bytes(33)))) + done(),
    "attribute of length 3": device(device_attrs() + struct.pack("=HH", 3, 99)) + done(),
    "attribute past the message": message(FAMILY, bytes(4) + device_attrs() + struct.pack("=HH", 5, 99)) + done(),
    "attribute past its nest": device(device_attrs(), struct.pack("=HH", 5, 0)) + done(),
    "unknown attribute past its peer": a_dump_with(peer_attrs() + struct.pack("=HH", 8, 99)),
    "half an attribute header": device(device_attrs(), b"\4\0") + done(),
    "peer without a key": a_dump_with(peer_attrs(public_key=b"")),
    "peer key of 33 bytes": a_dump_with(peer_attrs(public_key=attr(1, bytes(33)))),
    "preshared key of 1 byte": a_dump_with(peer_attrs(preshared_key=attr(2, b"x"))),
    "rx of 4 bytes": a_dump_with(peer_attrs(rx=attr(7, bytes(4)))),
    "tx of 12 bytes": a_dump_with(peer_attrs(tx=attr(8, bytes(12)))),
    "rx twice": a_dump_with(peer_attrs() + attr(7, bytes(8))),
    "handshake time of 8 bytes": a_dump_with(peer_attrs(handshake=attr(6, bytes(8)))),
    "endpoint of 8 bytes": a_dump_with(peer_attrs(endpoint=attr(4, bytes(8)))),
    "endpoint of an unknown family": a_dump_with(peer_attrs(endpoint=attr(4, bytes(28)))),
    "IPv6 endpoint of 16 bytes": a_dump_with(peer_attrs(endpoint=attr(4, socket_address("::1", 1)[:16]))),
    "IPv4 endpoint of 28 bytes": a_dump_with(peer_attrs(endpoint=attr(4, socket_address("192.0.2.1", 1) + bytes(12)))),
    "keepalive of 4 bytes": a_dump_with(peer_attrs(keepalive=attr(5, bytes(4)))),
    "first appearance without rx": a_dump_with(peer_attrs(rx=b"")),
    "first appearance without tx": a_dump_with(peer_attrs(tx=b"")),
    "first appearance without a handshake time": a_dump_with(peer_attrs(handshake=b"")),
    "first appearance with a key only": a_dump_with(attr(1, key(1))),
    "continuation of another peer": device(device_attrs(), peer(1)) + device(b"", continuation(2, "::/0")) + done(),
    "continuation of an earlier peer": device(device_attrs(), peer(1), peer(2), continuation(1, "::/0")) + done(),
    "continuation with a counter": device(device_attrs(), peer(1), nest(0, attr(1, key(1)), attr(7, bytes(8))))
    + done(),
    "last peer again": device(device_attrs(), peer(1), peer(1)) + done(),
    "earlier peer again": device(device_attrs(), peer(1), peer(2), peer(1)) + done(),
    "handshake before the epoch": handshake(-1, 0),
    "negative nanoseconds": handshake(1, -1),
    "a second of nanoseconds": handshake(1, 10**9),
    "handshake past what 64 bits hold": handshake(9223372036, 854775808),
    "handshake far past it": handshake((1 << 63) - 1, 0),
    "IPv4 of 16 bytes": a_dump_with(peer_attrs(1, an_ip(2, bytes(16), 32))),
    "IPv6 of 4 bytes": a_dump_with(peer_attrs(1, an_ip(10, bytes(4), 32))),
    "IPv4 with /33": a_dump_with(peer_attrs(1, an_ip(2, bytes(4), 33))),
    "IPv6 with /129": a_dump_with(peer_attrs(1, an_ip(10, bytes(16), 129))),
    "unknown address family": a_dump_with(peer_attrs(1, an_ip(1, bytes(4), 32))),
    "address of 17 bytes": a_dump_with(peer_attrs(1, an_ip(10, bytes(17), 64))),
    "allowed-ip without a family": a_dump_with(peer_attrs(1, nest(0, attr(2, bytes(4)), attr(3, b"\x20")))),
    "allowed-ip without a mask": a_dump_with(peer_attrs(1, nest(0, attr(2, bytes(4)), attr(1, b"\2\0")))),
    "allowed-ip without an address": a_dump_with(peer_attrs(1, nest(0, attr(1, b"\2\0"), attr(3, b"\x20")))),
}


@pytest.mark.parametrize("buffer", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_messages_are_refused(buffer: bytes) -> None:
    """What the protocol does not allow is refused, not guessed at."""
    parser = DumpParser(FAMILY)
    parser.begin(SEQ, PORT)
    with pytest.raises(MalformedDump):  # noqa: PT012 - a peer that comes twice shows only in the result
        parser.feed(buffer, len(buffer))
        parser.result()


def test_the_last_handshake_that_fits() -> None:
    """The largest time of 64 bits of nanoseconds is still a time."""
    parser = DumpParser(FAMILY)
    parser.begin(SEQ, PORT)
    buffer = handshake(9223372036, 854775807)
    assert parser.feed(buffer, len(buffer))
    (found,) = parser.result().peers.values()
    assert found.last_handshake_ns == (1 << 63) - 1
