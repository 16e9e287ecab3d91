"""ICMP errors that a client makes up: they change nothing for the host or for other clients."""

from __future__ import annotations

import json
import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support import netns
from tests.support.egress.packets import (
    ICMP6_TOO_BIG,
    ICMP6_UNREACHABLE_PORT,
    ICMP_TOO_BIG,
    ICMP_UNREACHABLE_PORT,
    SYN,
    error_about,
    tcp,
    token,
    udp,
)
from tests.support.egress.vantage import EXIT_OF, INSIDE_OF, WEB_OF
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import WEB_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.egress.capture import Seen
    from tests.support.egress.vantage import Vantage

LAN = {4: "198.51.100.34", 6: "2001:db8:1:2::2"}  # the second client's own, outside the tunnel
TOO_BIG, UNREACHABLE_PORT = {4: ICMP_TOO_BIG, 6: ICMP6_TOO_BIG}, {4: ICMP_UNREACHABLE_PORT, 6: ICMP6_UNREACHABLE_PORT}
CUT = 1280  # what IPv6 allows as the least
WIREGUARD = 51820
PORT = 40123

pytestmark = [pytest.mark.black_box, pytest.mark.parametrize("version", [4, 6])]


def path_mtu(exit_: Vantage, address: str) -> int | None:
    """What the exit's kernel has been told of the way to an address; None: nothing."""
    (route,) = json.loads(exit_.exit.sh(f"ip --json route get {address}"))
    for metric in route.get("metrics", []):
        if "mtu" in metric:
            return int(metric["mtu"])
    return None


@contextmanager
def connected(exit_: Vantage, version: int) -> Iterator[tuple[int, int]]:
    """A connection of the exit's own to the internet: its port there, and the sequence number it sends next."""
    with netns.Namespace(exit_.world.exit.name).entered():
        connection = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
    with connection:
        connection.connect((WEB_OF[version], WEB_PORT))
        port = connection.getsockname()[1]

        def begun() -> list[Seen]:
            seen = exit_.far.packets()
            return [p for p in seen if p.protocol == socket.IPPROTO_TCP and p.ports[0] == port and p.tcp_flags & SYN]

        (sequence,) = struct.unpack_from("!I", until(begun, "its first segment")[-1].payload, 4)
        yield port, (sequence + 1) % (1 << 32)


@contextmanager
def sending_to_the_other_client(exit_: Vantage, version: int) -> Iterator[tuple[str, int, int]]:
    """What the exit sends packets to the second client's own address by: its address, its port and the client's port.

    It is WireGuard's flow to that client over IPv4, which clients dial, and a socket of the host's over IPv6.
    """
    if version == 4:
        (line,) = (x for x in exit_.exit.sh("wg show {wg} endpoints").splitlines() if exit_.clients[1].member.key in x)
        yield EXIT_OF[4], WIREGUARD, int(line.rpartition(":")[2])
        return
    with netns.Namespace(exit_.world.exit.name).entered():
        sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with sender:
        sender.connect((LAN[6], 9))
        sender.send(b"")
        address, port, *_ = sender.getsockname()
        yield address, port, 9


def test_the_path_to_another_client_stays(exit_: Vantage, version: int) -> None:
    """An error about what the exit sends to another client's endpoint does not cut the way to that client."""
    with sending_to_the_other_client(exit_, version) as (address, port, to_port):
        quoted = udp(address, LAN[version], b"", to_port, source_port=port).whole()
        for to in (address, INSIDE_OF[version]):
            exit_.send(error_about(exit_.clients[0].address[version], to, quoted, TOO_BIG[version], CUT))
        exit_.settle(version)
        assert path_mtu(exit_, LAN[version]) is None


def test_the_path_of_the_hosts_own_connections_stays(exit_: Vantage, version: int) -> None:
    """An error about a connection of the host's, with the right sequence number, does not cut its path."""
    with connected(exit_, version) as (port, sequence):
        segment = tcp(EXIT_OF[version], WEB_OF[version], b"", WEB_PORT, source_port=port)
        quoted = segment.whole()
        head = len(quoted) - len(segment.head)
        quoted = quoted[: head + 4] + struct.pack("!I", sequence) + quoted[head + 8 :]
        sender = exit_.clients[0].address[version]
        for to in (EXIT_OF[version], INSIDE_OF[version]):
            exit_.send(error_about(sender, to, quoted, TOO_BIG[version], CUT))
        exit_.settle(version)
        assert path_mtu(exit_, WEB_OF[version]) is None


def test_flows_of_other_clients_get_no_error(exit_: Vantage, version: int) -> None:
    """An error about another client's flow reaches neither that client nor the other side; one about a flow of its own
    is translated and let through."""
    own, other = (client.address[version] for client in exit_.clients)
    web, exit_ip = WEB_OF[version], EXIT_OF[version]
    for number, client in enumerate(exit_.clients):
        flow = udp(client.address[version], web, token(), source_port=PORT + number)
        client.send(flow.whole())
        exit_.far.await_carrying(flow.carried)
    marks = [token() for _ in range(3)]
    kind = UNREACHABLE_PORT[version]
    to_internet = error_about(own, web, udp(web, other, marks[0], PORT + 1, source_port=9).whole(), kind)
    to_client = error_about(own, exit_ip, udp(exit_ip, web, marks[1], 9, source_port=PORT + 1).whole(), kind)
    about_own = error_about(own, web, udp(web, own, marks[2], PORT, source_port=9).whole(), kind)
    for packet in (to_internet, to_client, about_own):
        exit_.send(packet)
    until(lambda: list(exit_.far.errors_about(marks[2])), "an error about its own flow comes out")
    assert list(exit_.far.errors_about(marks[0])) == []
    assert list(exit_.clients[1].seen.errors_about(marks[1])) == []


def test_what_the_exit_sends_into_the_tunnel_may_be_answered_with_an_error(exit_: Vantage, version: int) -> None:
    """The exit hears that a client has nothing on a port, from the client itself and from nobody else."""
    with netns.Namespace(exit_.world.exit.name).entered():
        sender = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    with sender:
        sender.settimeout(10)
        sender.connect((exit_.clients[0].address[version], 9))
        sender.send(b"anybody there?")
        with pytest.raises(ConnectionRefusedError):
            sender.recv(1)


def test_errors_of_every_type_are_compared(exit_: Vantage, version: int) -> None:
    """An error of a type that is not assigned (yet) reaches the host no more than the known ones: its sockets hear of
    those too. IPv4 has no such types: conntrack takes them for invalid."""
    kinds = (5, 50, 100, 127) if version == 6 else (1, 2, 6, 7, 19)
    with connected(exit_, version) as (port, sequence), counted_errors(exit_):
        segment = tcp(EXIT_OF[version], WEB_OF[version], b"", WEB_PORT, source_port=port)
        quoted = segment.whole()
        head = len(quoted) - len(segment.head)
        quoted = quoted[: head + 4] + struct.pack("!I", sequence) + quoted[head + 8 :]
        for kind in kinds:
            for to in (EXIT_OF[version], INSIDE_OF[version], WEB_OF[version]):
                exit_.send(error_about(exit_.clients[0].address[version], to, quoted, (kind, 0)))
        exit_.settle(version)
        assert "packets 0 " in exit_.exit.sh("nft list counter inet seen errors")


@contextmanager
def counted_errors(exit_: Vantage) -> Iterator[None]:
    """A counter of what arrives from clients, or leaves for the internet, and is an ICMP error of any type."""
    chains = "; ".join(
        f"add chain inet seen {hook} {{ type filter hook {hook} priority 300; }}; add rule inet seen {hook} "
        f'iifname "{exit_.appliance.interface}" icmpv6 type < 128 counter name errors; add rule inet seen {hook} '
        f'iifname "{exit_.appliance.interface}" icmp type != {{ 0, 8 }} counter name errors'
        for hook in ("input", "forward")
    )
    exit_.exit.sh(f"nft 'add table inet seen; add counter inet seen errors; {chains}'")
    try:
        yield
    finally:
        exit_.exit.sh("nft delete table inet seen")
