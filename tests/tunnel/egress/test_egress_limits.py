"""How many connections one client may have, and open a second; what is over that is refused, and is no other's loss."""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from appliance.network.firewall import conntrack
from tests.support import netns
from tests.support.egress.capture import mac_of, send
from tests.support.egress.flood import flows, tracked
from tests.support.egress.packets import ACK, RST, SYN, echo, tcp, token, udp
from tests.support.egress.vantage import EXIT_OF, INSIDE, PROHIBITED, WEB_OF, Inside, Vantage, vantage_on
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST, A_SECOND = 60, 20
AT_ONCE = 10 * A_SECOND
TOGETHER = 100  # packets that a tunnel's queues take at once


@pytest.fixture(scope="module")
def few(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vantage]:
    """An exit that allows a client few connections at a time."""
    limits = {"max_flows": MOST, "new_flows": 0}
    with vantage_on(backend, tmp_path_factory.mktemp("few"), egress=limits) as made:
        yield made


@pytest.fixture(scope="module")
def slow(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vantage]:
    """An exit that allows a client few new connections a second."""
    limits = {"max_flows": 0, "new_flows": A_SECOND}
    with vantage_on(backend, tmp_path_factory.mktemp("slow"), egress=limits) as made:
        yield made


def passed(exit_: Vantage, client: Inside, packets: list[bytes], port: int) -> int:
    """How many come out to this port, once no more do."""
    for begun in range(0, len(packets), TOGETHER):
        client.send(*packets[begun : begun + TOGETHER])
        time.sleep(0.03)
    before = -1
    while (now := come_out(exit_, port)) != before:
        before = now
        time.sleep(0.5)
    return now


def come_out(exit_: Vantage, port: int) -> int:
    return sum(seen.protocol == socket.IPPROTO_UDP and seen.ports[1] == port for seen in exit_.far.packets())


def forget_all(exit_: Vantage) -> None:
    """Connections have ended, as they do by themselves after half a minute."""
    with netns.Namespace(exit_.world.exit.name).entered():
        conntrack.forget_of(ip_address(each) for client in exit_.clients for each in client.address.values())


def test_both_versions_count_together(few: Vantage) -> None:
    """A client that has so many connections over IPv4 and IPv6 together gets no more of either: it is told, a TCP
    connection is reset. What it has goes on, answered or not; another client has as many of its own."""
    one, other = few.clients
    assert passed(few, one, flows(one.address[4], WEB_OF[4], MOST // 2, 1001), 1001) == MOST // 2
    many = passed(few, one, flows(one.address[6], WEB_OF[6], MOST, 1002), 1002)
    assert MOST // 2 - 5 <= many <= MOST // 2  # it may have some of its own, such as an echo request
    for version in (4, 6):
        ends = one.address[version], WEB_OF[version]
        for packet in (udp(*ends, token(), 1003), echo(*ends, token())):
            one.send(packet.whole())
            error = until(lambda packet=packet: next(one.seen.errors_about(packet.carried), None), "it is told")  # type: ignore[misc]  # mypy infers no lambda with a default
            assert error is not None
            assert error.icmp == PROHIBITED[version]
            assert few.far.carrying(packet.carried) == []
        one.send(tcp(*ends, b"", 1004).whole())
        until(
            lambda version=version: [  # type: ignore[misc]
                seen
                for seen in one.seen.packets()
                if seen.protocol == 6 and str(seen.source) == WEB_OF[version] and seen.tcp_flags & RST
            ],
            "the connection is reset",
        )
    going_on = udp(one.address[4], WEB_OF[4], token(), 1001, source_port=1024)
    one.send(going_on.whole())
    few.far.await_carrying(going_on.carried)
    assert passed(few, other, flows(other.address[4], WEB_OF[4], MOST - 10, 1005), 1005) == MOST - 10


def test_connections_to_the_exit_count_too(few: Vantage) -> None:
    """What a client begins with the exit's own address in the tunnel takes its room as well."""
    client = few.clients[0]
    forget_all(few)
    before = tracked(few.world.exit)
    client.send(*flows(client.address[4], INSIDE, 2 * MOST, 53))
    until(lambda: tracked(few.world.exit) >= before + MOST - 5, "they are tracked")
    time.sleep(0.5)
    assert tracked(few.world.exit) <= before + MOST + 2


def test_room_comes_back(few: Vantage) -> None:
    """When its connections have ended, a client may begin as many again."""
    client = few.clients[0]
    forget_all(few)
    passed(few, client, flows(client.address[4], WEB_OF[4], 2 * MOST, 3001), 3001)
    forget_all(few)
    many = passed(few, client, flows(client.address[4], WEB_OF[4], 2 * MOST, 3002), 3002)
    assert MOST - 5 <= many <= MOST


def test_new_connections_come_at_a_rate(slow: Vantage) -> None:
    """Ten seconds' worth of new connections at once, over both IP versions; then they wait. A connection that nobody
    answers is not new any more: its packets pass, however many."""
    one, other = slow.clients
    many = passed(slow, one, flows(one.address[4], WEB_OF[4], AT_ONCE + 300, 4001), 4001)
    assert AT_ONCE * 0.9 <= many <= AT_ONCE + 100
    many = passed(slow, one, flows(one.address[6], WEB_OF[6], 300, 4002), 4002)
    assert many <= 100
    unanswered = udp(one.address[4], WEB_OF[4], b"on and on", 4001, source_port=1024).whole()
    assert passed(slow, one, [unanswered] * 300, 4001) >= 300 + AT_ONCE * 0.9
    assert passed(slow, other, flows(other.address[4], WEB_OF[4], AT_ONCE // 2, 4003), 4003) == AT_ONCE // 2
    until(lambda: passed(slow, one, flows(one.address[4], WEB_OF[4], 10, 4004), 4004) >= 10, "new ones pass again")


@contextmanager
def ends_that_send_nothing_themselves(exit_: Vantage, client: Inside, port: int) -> Iterator[None]:
    """Neither host's own TCP answers to segments of this port, which it knows nothing of."""
    ends = (exit_.world.internet, "input"), (client.space, "input")
    for space, hook in ends:
        drop = f"tcp dport {port}" if space is exit_.world.internet else f"tcp sport {port}"
        chain = f"chain quiet {{ type filter hook {hook} priority 0; {drop} drop; \n}}"
        space.run("nft", "-f", "-", text_input=f"table inet quiet {{ {chain} \n}}")
    try:
        yield
    finally:
        for space, _ in ends:
            space.run("nft", "delete", "table", "inet", "quiet")


def test_a_connection_that_was_reset_begins_anew(few: Vantage) -> None:
    """One that the other side has reset counts no more, so it does not live on either: another SYN of its ports goes
    out when conntrack has forgotten it, and begins a connection that counts."""
    client, port, own = few.clients[0], 7777, 45_000
    forget_all(few)
    mac = mac_of(few.world.exit, "wan")

    def begun(version: int) -> int:
        seen = [each for each in few.far.packets() if each.protocol == socket.IPPROTO_TCP and not each.sent]
        return sum(each.ports[1] == port and each.source.version == version for each in seen)

    with ends_that_send_nothing_themselves(few, client, port):
        for version in (4, 6):
            there, here, web = EXIT_OF[version], client.address[version], WEB_OF[version]
            first = tcp(here, web, b"", port, source_port=own)
            client.send(first.whole())
            until(lambda version=version: begun(version) == 1, "it comes out")  # type: ignore[misc]
            for flags in (SYN | ACK, RST | ACK):
                answer = tcp(web, there, b"", own, source_port=port, flags=flags, acknowledged=1001)
                send(few.world.internet, "net0", answer.whole(), to_mac=mac)
            until(
                lambda web=web: [s for s in client.seen.packets() if str(s.source) == web and s.payload[13] & RST],  # type: ignore[misc]
                "the client is told",
            )
            client.send(first.whole())
            few.settle(version)
            assert begun(version) == 1

        def begin_again() -> bool:
            for version in (4, 6):
                client.send(tcp(client.address[version], WEB_OF[version], b"", port, source_port=own).whole())
            return begun(4) > 1 and begun(6) > 1

        until(begin_again, "it begins again")
