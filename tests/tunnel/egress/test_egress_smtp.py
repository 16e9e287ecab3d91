"""Mail: what clients send to its ports does not leave the exit."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.support.egress.packets import ACK, RST, SYN, tcp, token, udp
from tests.support.egress.servers import tcp_servers
from tests.support.egress.vantage import INSIDE_OF, WEB_OF
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from tests.support.egress.capture import Seen
    from tests.support.egress.vantage import Vantage

PORTS = (25, 465, 587, 2525)


def answered(exit_: Vantage, address: str, port: int) -> Seen:
    """What the client gets from this port first."""
    found = until(
        lambda: [
            seen
            for seen in exit_.clients[0].seen.packets()
            if not seen.sent and seen.protocol == socket.IPPROTO_TCP
            if (str(seen.source), seen.ports[0]) == (address, port)
        ],
        f"port {port} of {address} answers",
    )
    return found[0]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("port", PORTS)
def test_mail_ports_are_reset(exit_: Vantage, version: int, port: int) -> None:
    """A SYN to a mail port does not reach the internet, and the client gets a reset at once."""
    client, web = exit_.clients[0].address[version], WEB_OF[version]
    exit_.is_stopped(tcp(client, web, token(), port))
    assert answered(exit_, web, port).tcp_flags & (RST | SYN) == RST


@pytest.mark.parametrize("version", [4, 6])
def test_other_ports_pass(exit_: Vantage, version: int) -> None:
    """Their neighbours, and the same ports over UDP, pass."""
    client, web = exit_.clients[0].address[version], WEB_OF[version]
    for port in (24, 26, 443, 993):
        exit_.reaches(tcp(client, web, token(), port))
    exit_.reaches(udp(client, web, token(), 25))


# The kernel itself drops an IPv6 first fragment that does not hold the whole header (RFC 7112).
@pytest.mark.parametrize(("version", "first"), [(4, 8), (6, 24)])
def test_a_fragmented_syn_to_a_mail_port_does_not_leave(exit_: Vantage, version: int, first: int) -> None:
    """A SYN to a mail port that is cut in two does not leave either; one to another port does."""
    client, web = exit_.clients[0].address[version], WEB_OF[version]
    packet = tcp(client, web, token(), 25)
    exit_.clients[0].send(*packet.fragments(first))
    exit_.settle(version)
    assert exit_.far.carrying(packet.carried) == []
    allowed = tcp(client, web, token(), 443)
    exit_.clients[0].send(*allowed.fragments(first))
    exit_.far.await_carrying(allowed.carried)


@pytest.mark.parametrize("version", [4, 6])
def test_the_hosts_own_mail_server_is_not_reached(exit_: Vantage, version: int) -> None:
    """A mail server on the exit itself, which may relay for its neighbours, is not reached through the tunnel; a
    resolver there is."""
    client, inside = exit_.clients[0].address[version], INSIDE_OF[version]
    with tcp_servers(exit_.world.exit, inside, 25, 53):
        for port in (25, 53):
            exit_.send(tcp(client, inside, b"", port))
        assert answered(exit_, inside, 53).tcp_flags == SYN | ACK
        assert answered(exit_, inside, 25).tcp_flags & (RST | SYN) == RST
