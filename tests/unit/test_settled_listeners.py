"""Which listeners count: services, and not the sockets of a resolver's questions."""

from __future__ import annotations

import random

import pytest

from appliance.network.firewall.settled_listeners import STAYS_S, UDP, SettledListeners
from appliance.network.netlink.sock_diag import ListeningSocket

TCP = 6
LOOK_S = 10.0
EPHEMERAL = range(32768, 61000)
LOW, HIGH = 7000, 51820  # outside and inside of the host's own range


class Looks:
    """Looks every 10 s; the first one sees nothing."""

    def __init__(self, *at_start: ListeningSocket) -> None:
        self.now = 1000.0
        self._settled = SettledListeners()
        self.first = self._settled.look(at_start, EPHEMERAL, self.now)

    def look(self, *seen: ListeningSocket) -> frozenset[tuple[int, int]]:
        self.now += LOOK_S
        return self._settled.look(seen, EPHEMERAL, self.now)


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("port", [LOW, HIGH])
def test_every_listener_found_at_start_counts(protocol: int, port: int) -> None:
    """At once, wherever its port is."""
    assert Looks(ListeningSocket(protocol, port, 1)).first == {(protocol, port)}


def test_tcp_counts_at_once() -> None:
    """A TCP socket that listens is a service's."""
    assert Looks().look(ListeningSocket(TCP, LOW, 1)) == {(TCP, LOW)}


def test_udp_counts_when_two_looks_have_seen_the_same_socket() -> None:
    """Not another one that has the port by chance; whatever the TCP socket of that port."""
    looks = Looks()
    assert not looks.look(ListeningSocket(UDP, LOW, 1))
    assert not looks.look(ListeningSocket(UDP, LOW, 2))
    assert not looks.look()
    assert not looks.look(ListeningSocket(UDP, LOW, 2))
    assert looks.look(ListeningSocket(UDP, LOW, 2)) == {(UDP, LOW)}


def test_udp_counts_when_looks_in_a_row_have_seen_the_port() -> None:
    """A service that listens by another socket each time that a peer has come."""
    looks = Looks()
    answers = [looks.look(ListeningSocket(UDP, LOW, number)) for number in range(4)]
    assert answers == [*[frozenset()] * 3, {(UDP, LOW)}]


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_in_the_hosts_own_range_a_port_counts_after_a_minute(protocol: int) -> None:
    """Where the kernel gives ports at random a listener counts when its port has been there for 60 s, be it another
    socket meanwhile: a service that restarts."""
    looks = Looks()
    answers = [looks.look(ListeningSocket(protocol, HIGH, number // 3)) for number in range(7)]
    assert answers == [*[frozenset()] * 6, {(protocol, HIGH)}]


def test_a_port_that_was_away_begins_anew() -> None:
    """The 60 s are without a gap."""
    looks = Looks()
    for _ in range(4):
        assert not looks.look(ListeningSocket(UDP, HIGH, 1))
    assert not looks.look()
    for _ in range(6):
        assert not looks.look(ListeningSocket(UDP, HIGH, 1))
    assert looks.look(ListeningSocket(UDP, HIGH, 1)) == {(UDP, HIGH)}


def test_a_service_that_restarts_keeps_its_port() -> None:
    """A port is free a minute after its last listener."""
    service = ListeningSocket(TCP, LOW, 1)
    looks = Looks(service)
    for _ in range(int(STAYS_S / LOOK_S) - 1):
        assert looks.look() == {(TCP, LOW)}
    assert looks.look(ListeningSocket(TCP, LOW, 2)) == {(TCP, LOW)}
    assert [bool(looks.look()) for _ in range(6)] == [True] * 5 + [False]


def test_a_resolver_that_asks_from_random_ports_takes_none() -> None:
    """200 questions a second for an hour, of which each look sees those of a second, from ports of the host's own range
    and from any: none of them counts."""
    for ports in (EPHEMERAL, range(1024, 65536)):
        chance, looks = random.Random(3), Looks()  # noqa: S311 - no secret
        for _ in range(360):
            seen = {ListeningSocket(UDP, chance.choice(ports), chance.getrandbits(64)) for _ in range(200)}
            assert not looks.look(*seen)


def test_what_a_resolver_had_open_at_start_is_free_again_after_a_minute() -> None:
    """At start its sockets count as all do."""
    looks = Looks(*(ListeningSocket(UDP, 40000 + number, number) for number in range(50)))
    assert len(looks.first) == 50
    assert [len(looks.look()) for _ in range(6)] == [50] * 5 + [0]
