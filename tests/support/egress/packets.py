"""IP packets byte by byte, as a client that means no good would make them too."""

from __future__ import annotations

import secrets
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

SYN, RST, FIN, ACK = 0x02, 0x04, 0x01, 0x10
ICMP_PROHIBITED = (3, 13)  # RFC 1812, communication administratively prohibited
ICMP6_PROHIBITED = (1, 1)  # RFC 4443
ICMP_UNREACHABLE_PORT, ICMP6_UNREACHABLE_PORT = (3, 3), (1, 4)
ICMP_TOO_BIG, ICMP6_TOO_BIG = (3, 4), (2, 0)
ICMP6 = 58
FRAGMENT = 44  # RFC 8200
CLIENT_PORT = 40000


def token() -> bytes:
    """What a packet is known by, wherever it comes out: nobody translates what it carries."""
    return secrets.token_bytes(8)


@dataclass(frozen=True, slots=True)
class Packet:
    """`head`: of the transport protocol, with its checksum; `carried`: what it carries."""

    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    protocol: int
    head: bytes
    carried: bytes

    @property
    def version(self) -> int:
        return self.source.version

    def whole(self) -> bytes:
        return self._ip(self.head + self.carried, self.protocol, 0)

    def fragments(self, first: int) -> list[bytes]:
        """Two; the first one carries so many bytes, of the transport header on. A multiple of 8."""
        payload, number = self.head + self.carried, secrets.randbits(16) or 1
        parts = [(0, payload[:first], True), (first, payload[first:], False)]
        if self.version == 4:
            return [self._ip(part, self.protocol, number, (more << 13) | offset // 8) for offset, part, more in parts]
        return [
            self._ip(struct.pack("!BBHI", self.protocol, 0, offset | more, number) + part, FRAGMENT, 0)
            for offset, part, more in parts
        ]

    def _ip(self, payload: bytes, protocol: int, number: int, fragment: int = 0) -> bytes:
        ends = self.source.packed + self.destination.packed
        if self.version == 6:
            return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + ends + payload
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), number, fragment, 64, protocol, 0) + ends
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def udp(source: str, destination: str, carried: bytes, port: int = 9, *, source_port: int = CLIENT_PORT) -> Packet:
    head = struct.pack("!HHHH", source_port, port, 8 + len(carried), 0)
    return _sealed(source, destination, socket.IPPROTO_UDP, head, 6, carried)


def tcp(
    source: str,
    destination: str,
    carried: bytes,
    port: int,
    *,
    flags: int = SYN,
    mss: int | None = None,
    source_port: int = CLIENT_PORT,
    acknowledged: int = 0,
) -> Packet:
    options = b"" if mss is None else struct.pack("!BBH", 2, 4, mss)
    offset = (20 + len(options)) // 4 << 4
    head = struct.pack("!HHIIBBHHH", source_port, port, 1000, acknowledged, offset, flags, 65535, 0, 0) + options
    return _sealed(source, destination, socket.IPPROTO_TCP, head, 16, carried)


def echo(source: str, destination: str, carried: bytes) -> Packet:
    version = ip_address(source).version
    head = struct.pack("!BBHHH", 8 if version == 4 else 128, 0, 0, secrets.randbits(16), 1)
    return _sealed(source, destination, socket.IPPROTO_ICMP if version == 4 else ICMP6, head, 2, carried)


def error_about(source: str, destination: str, quoted: bytes, kind: tuple[int, int], mtu: int = 0) -> Packet:
    """An ICMP error of this type and code that quotes a packet, or the beginning of one."""
    version = ip_address(source).version
    protocol = socket.IPPROTO_ICMP if version == 4 else ICMP6
    return _sealed(source, destination, protocol, struct.pack("!BBHI", *kind, 0, mtu), 2, quoted)


def _sealed(source: str, destination: str, protocol: int, head: bytes, at: int, carried: bytes) -> Packet:
    """With the checksum, at this place of the header. ICMP for IPv4 alone has none over the addresses."""
    ends = ip_address(source).packed + ip_address(destination).packed
    covered = head + carried
    if protocol != socket.IPPROTO_ICMP:
        covered = ends + struct.pack("!II", len(covered), protocol) + covered
    head = head[:at] + struct.pack("!H", checksum(covered) or 0xFFFF) + head[at + 2 :]
    return Packet(ip_address(source), ip_address(destination), protocol, head, carried)


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
