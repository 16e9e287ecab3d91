"""The host's own services, from inside the tunnel and from beside it."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.support import netns
from tests.support.egress.capture import mac_of, send
from tests.support.egress.packets import ACK, RST, SYN, echo, tcp, token, udp
from tests.support.egress.servers import tcp_servers, udp_server
from tests.support.egress.tables import PUBLISHED, table_of_another
from tests.support.egress.vantage import EXIT_OF, INSIDE_OF, WEB_OF, Inside, Vantage
from tests.support.tunnel.waiting import until

SSH, RESOLVER, OTHER = 22, 53, 5353
EVERYWHERE = {4: "0.0.0.0", 6: "::"}  # noqa: S104 (in a namespace)
# Another program's, before and after ours: what it accepts, it alone lets through.
TRUSTING = """
table inet trusting {
  chain first { type filter hook input priority -10; ip saddr 10.0.0.0/8 accept; ip6 saddr fc00::/7 accept; }
  chain last { type filter hook input priority 10; ip saddr 10.0.0.0/8 accept; ip6 saddr fc00::/7 accept; }
}
"""
CONTAINER = {4: "172.19.0.10", 6: "fd19::10"}
# As published ports are: what is for the tunnel's address goes to a container's.
TO_CONTAINER = {
    version: f"{family} daddr {INSIDE_OF[version]} udp dport {{port}} dnat {family} to {CONTAINER[version]}"
    for version, family in ((4, "ip"), (6, "ip6"))
}


def tcp_answer(client: Inside, version: int, address: str, port: int, source_port: int) -> int:
    """The flags of what a SYN gets."""
    client.send(tcp(client.address[version], address, token(), port, source_port=source_port).whole())

    def answered() -> int:
        flags = (
            seen.tcp_flags
            for seen in client.seen.packets()
            if seen.protocol == socket.IPPROTO_TCP and seen.ports == (port, source_port) and str(seen.source) == address
        )
        return next(flags, 0)

    return until(answered, f"an answer of {address}, port {port}")


@pytest.mark.black_box
@pytest.mark.parametrize("version", [4, 6])
def test_services_on_all_addresses_are_closed(exit_: Vantage, version: int) -> None:
    """What listens on all of the host's addresses is closed to clients at the exit's own address too, also where
    another table trusts private sources."""
    client, inside = exit_.clients[0], INSIDE_OF[version]
    with (
        tcp_servers(exit_.world.exit, EVERYWHERE[version], SSH),
        udp_server(exit_.world.exit, OTHER) as server,
        table_of_another(exit_, TRUSTING),
    ):
        assert tcp_answer(client, version, inside, SSH, 41000 + version) & RST
        exit_.is_rejected(udp(client.address[version], inside, token(), OTHER))
        exit_.is_rejected(udp(client.address[version], EXIT_OF[version], token(), OTHER))
        assert server.received() == []


@pytest.mark.parametrize("version", [4, 6])
def test_ping_and_a_resolver_are_reached(exit_: Vantage, version: int) -> None:
    """At the exit's own address ping and a resolver's port answer, by UDP and TCP."""
    client, inside = exit_.clients[0], INSIDE_OF[version]
    ping = echo(client.address[version], inside, token())
    client.send(ping.whole())
    until(lambda: any(str(s.source) == inside for s in client.seen.carrying(ping.carried)), "the ping is answered")
    with tcp_servers(exit_.world.exit, EVERYWHERE[version], RESOLVER):
        assert tcp_answer(client, version, inside, RESOLVER, 42000 + version) == SYN | ACK
    question = udp(client.address[version], inside, token(), RESOLVER)
    with udp_server(exit_.world.exit, RESOLVER) as server:
        exit_.send(question)
        until(lambda: question.carried in server.received(), "the resolver is asked")


@pytest.mark.parametrize("version", [4, 6])
def test_a_connection_of_the_host_to_a_client_is_answered(exit_: Vantage, version: int) -> None:
    """What the host itself begins with a client, the client's answers to it reach the host."""
    client = exit_.clients[0]
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    with netns.Namespace(client.space.name).entered():
        listener = socket.create_server((client.address[version], 7000), family=family)
    with listener:
        thread = threading.Thread(target=_echo_once, args=(listener,))
        thread.start()
        with netns.Namespace(exit_.world.exit.name).entered():
            called = socket.create_connection((client.address[version], 7000), 30)
        with called:
            called.sendall(b"asked")
            assert called.recv(16) == b"asked"
        thread.join(30)


def _echo_once(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(connection.recv(16))


@pytest.mark.black_box
@pytest.mark.parametrize("version", [4, 6])
def test_a_published_resolver_is_reached(exit_: Vantage, version: int) -> None:
    """A resolver in a container, published at the exit's own address, is reached there, and only there; another
    published port is not."""
    client, inside, container = exit_.clients[0].address[version], INSIDE_OF[version], CONTAINER[version]
    for port in (RESOLVER, OTHER):
        question = udp(client, inside, token(), port, source_port=43000 + port)
        with table_of_another(exit_, PUBLISHED.format(rule=TO_CONTAINER[version].format(port=port))):
            if port == RESOLVER:
                exit_.send(question)
                seen = exit_.far.await_carrying(question.carried)
                assert (str(seen.destination), seen.ports[1]) == (container, RESOLVER)
            else:
                exit_.is_rejected(question)
    exit_.is_rejected(udp(client, container, token(), RESOLVER))


@pytest.mark.black_box
@pytest.mark.parametrize("version", [4, 6])
def test_neighbours_do_not_reach_the_tunnels_own_address(exit_: Vantage, version: int) -> None:
    """What neighbours of the host send to the exit's address in the tunnel is dropped, whatever it is."""
    inside, internet, received = INSIDE_OF[version], exit_.world.internet, EXIT_OF[version]
    gateway = mac_of(exit_.world.exit, "wan")
    with udp_server(exit_.world.exit, RESOLVER) as server, tcp_servers(exit_.world.exit, EVERYWHERE[version], SSH):
        ping, syn = echo(WEB_OF[version], inside, token()), tcp(WEB_OF[version], inside, token(), SSH)
        strange, passed = (udp(WEB_OF[version], to, token(), RESOLVER) for to in (inside, received))
        send(internet, "net0", *(each.whole() for each in (ping, syn, strange, passed)), to_mac=gateway)
        until(lambda: passed.carried in server.received(), "what is for the public address arrives")
        assert strange.carried not in server.received()
    assert [seen for seen in exit_.far.packets() if str(seen.source) == inside] == []
