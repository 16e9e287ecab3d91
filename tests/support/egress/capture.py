"""What passes an interface of a namespace, packet by packet, and packets sent out of one."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.support import netns
from tests.support.egress.packets import ICMP6
from tests.support.tunnel.waiting import READY_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.tunnel.namespace import Namespace

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD  # linux/if_ether.h
SOL_PACKET, PACKET_OUTGOING = 263, 4  # linux/if_packet.h
SO_RCVBUFFORCE = 33
BUFFER_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Seen:
    """An IP packet. `payload`: behind its IP header. `sent`: by the interface's own host."""

    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    protocol: int
    payload: bytes
    sent: bool

    @property
    def ports(self) -> tuple[int, int]:
        source, destination = struct.unpack_from("!HH", self.payload)
        return source, destination

    @property
    def tcp_flags(self) -> int:
        return self.payload[13]

    @property
    def mss(self) -> int:
        """Of a SYN in which it is the first option."""
        kind, length, mss = struct.unpack_from("!BBH", self.payload, 20)
        assert (kind, length) == (2, 4)
        return int(mss)

    @property
    def icmp(self) -> tuple[int, int] | None:
        """Type and code."""
        return (self.payload[0], self.payload[1]) if self.protocol in (socket.IPPROTO_ICMP, ICMP6) else None


class Capture:
    """Everything since it was made."""

    def __init__(self, space: Namespace, interface: str) -> None:
        self._socket = _packet_socket(space)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        self._socket.bind((interface, ETH_P_ALL))
        self._socket.setblocking(False)
        self._seen: list[Seen] = []

    def packets(self) -> list[Seen]:
        while True:
            try:
                data, (_, protocol, direction, *_) = self._socket.recvfrom(1 << 16)
            except BlockingIOError:
                return list(self._seen)
            if protocol in (ETH_P_IP, ETH_P_IPV6):
                self._seen.append(_parse(data, sent=direction == PACKET_OUTGOING))

    def carrying(self, mark: bytes) -> list[Seen]:
        """Those that carry it themselves: an ICMP error that quotes one of them is another matter."""
        return [seen for seen in self.packets() if mark in seen.payload and not _is_error(seen)]

    def errors_about(self, mark: bytes) -> Iterator[Seen]:
        return (seen for seen in self.packets() if _is_error(seen) and mark in seen.payload)

    def await_carrying(self, mark: bytes, seconds: float = READY_SECONDS) -> Seen:
        return until(lambda: self.carrying(mark), "the packet comes out", seconds)[0]

    def lost(self) -> int:
        """How many the kernel had no room for; it counts anew each time it is asked."""
        _, drops = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, 6, 8))  # PACKET_STATISTICS
        return int(drops)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def send(space: Namespace, interface: str, *packets: bytes, to_mac: str | None = None) -> None:
    """Out of an interface, past routing; `to_mac`: the next hop, where the interface is one that has neighbours."""
    with _packet_socket(space) as out:
        for packet in packets:
            kind = ETH_P_IP if packet[0] >> 4 == 4 else ETH_P_IPV6
            hop = () if to_mac is None else (0, 0, bytes.fromhex(to_mac.replace(":", "")))
            out.sendto(packet, (interface, kind, *hop))


def mac_of(space: Namespace, interface: str) -> str:
    return space.run("cat", f"/sys/class/net/{interface}/address").stdout.strip()


def _packet_socket(space: Namespace) -> socket.socket:
    """Whoever makes a socket decides which namespace it is of, for good."""
    assert Path(f"/run/netns/{space.name}").exists()
    with netns.Namespace(space.name).entered():
        return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)


def _is_error(seen: Seen) -> bool:
    """ICMP that quotes a packet."""
    if seen.icmp is None:
        return False
    kind = seen.icmp[0]
    return kind < 128 if seen.protocol == ICMP6 else kind in (3, 4, 5, 11, 12)


def _parse(data: bytes, *, sent: bool) -> Seen:
    if data[0] >> 4 == 4:
        ends, size, protocol = data[12:20], (data[0] & 15) * 4, data[9]
        return Seen(ip_address(ends[:4]), ip_address(ends[4:]), protocol, data[size:], sent)
    ends, protocol, payload = data[8:40], data[6], data[40:]
    if protocol == 0:  # hop-by-hop options, of one unit in all that hosts send by themselves
        protocol, payload = payload[0], payload[8:]
    return Seen(ip_address(ends[:16]), ip_address(ends[16:]), protocol, payload, sent)
