"""Many packets of many connections, sent at once: by a client through its tunnel, or in its name on the exit."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import netns
from tests.support.egress.packets import udp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.tunnel.namespace import Namespace

FIRST_PORT = 1024


def flows(source: str, destination: str, many: int, port: int = 9, first: int = FIRST_PORT) -> list[bytes]:
    """The first packets of so many UDP connections, of a source port each."""
    return [
        udp(source, destination, b"flood", port, source_port=number).whole() for number in range(first, first + many)
    ]


def flows_to(source: str, destination: str, many: int) -> list[bytes]:
    """As `flows`, of more than one address has ports for: to several ports of the other side."""
    each = 20_000  # fewer than the outside ports that an exit may have for one destination
    return [
        packet
        for port, begun in enumerate(range(0, many, each), start=9)
        for packet in flows(source, destination, min(each, many - begun), port)
    ]


def begin_on(space: Namespace, packets: Iterable[bytes]) -> None:
    """A host sends them itself, whatever their source is; its own conntrack has them from then on. IPv4."""
    with netns.Namespace(space.name).entered():
        out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with out:
        for packet in packets:
            out.sendto(packet, (str(ip_address(packet[16:20])), 0))


def tracked(space: Namespace) -> int:
    """How many connections a host's conntrack holds."""
    return _figure(space, "count")


def trackable(space: Namespace) -> int:
    """How many it may hold."""
    return _figure(space, "max")


def _figure(space: Namespace, name: str) -> int:
    with netns.Namespace(space.name).entered():
        return int(Path(f"/proc/sys/net/netfilter/nf_conntrack_{name}").read_text(encoding="ascii"))
