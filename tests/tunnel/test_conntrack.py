"""Flows as conntrack holds them, forgotten by address."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from appliance.network.firewall import conntrack
from appliance.network.firewall.client_flows import ClientFlows
from tests.support.netns import new_namespace
from tests.support.real_backend import NO_ROOT, backend_here

pytestmark = pytest.mark.skipif(backend_here() is None, reason=NO_ROOT)

TRACKED = "table inet t { chain c { type filter hook output priority 0; ct state new accept; }; }"
ONE, OTHER = "127.0.0.5", "127.0.0.6"
STRANGERS = [IPv4Address("127.9.0.0") + number for number in range(20)] + [ip_address("fd00::1")]


def begin_flow(source: str, destination: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        sender.sendto(b"x", (destination, 9))


@pytest.mark.parametrize("beside", [[], STRANGERS], ids=["one session's", "many sessions'"])
@pytest.mark.parametrize("read_all", [True, False], ids=["all are read", "the kernel looks for them"])
def test_flows_of_an_address_are_deleted(
    beside: list[conntrack.Address], read_all: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the address began and those begun to it are forgotten; those between others stay. What decides how
    they are found is told how many there are."""
    told = list[tuple[int, int]]()

    def decide(_: int, flows_there: int, buckets: int) -> bool:
        told.append((flows_there, buckets))
        return read_all

    monkeypatch.setattr(conntrack, "reading_all_is_quicker", decide)
    address = ip_address(ONE)
    with new_namespace() as space, space.entered():
        space.run("ip", "link", "set", "lo", "up")
        assert space.run("nft", TRACKED).returncode == 0
        begin_flow(ONE, OTHER)
        begin_flow(OTHER, ONE)
        begin_flow(OTHER, OTHER)
        assert conntrack.forget_of([address, *beside]) == 2
        assert conntrack.forget_of([address, *beside]) == 0
        assert conntrack.forget_of([ip_address(OTHER), *beside]) == 1
    assert [flows_there for flows_there, _ in told] == [3, 1, 1]
    assert all(buckets > 0 for _, buckets in told)


def test_flows_without_a_session_are_deleted_at_a_start() -> None:
    """At a start those go on whose ends, where they are clients', have a session; the rest is forgotten."""
    subnet, held = ip_network("127.0.0.0/28"), "127.0.0.6"
    with new_namespace() as space, space.entered():
        space.run("ip", "link", "set", "lo", "up")
        assert space.run("nft", TRACKED).returncode == 0
        begin_flow(held, "127.1.0.1")
        begin_flow("127.0.0.1", held)  # the host's own address in the subnet
        begin_flow("127.1.0.1", "127.1.0.2")
        begin_flow(ONE, "127.1.0.1")
        begin_flow("127.1.0.1", ONE)
        assert conntrack.forget_others([subnet], [ip_address(held)]) == 2
        assert conntrack.forget_others([subnet], [ip_address(held)]) == 0
        assert conntrack.forget_of([ip_address(held), *STRANGERS]) == 2
        assert conntrack.forget_of([ip_address("127.1.0.1"), *STRANGERS]) == 1


# Each source leaves from a port of its own.
TRANSLATED = """
table inet n {
  chain c {
    type nat hook postrouting priority srcnat;
    ip saddr 127.0.0.5 meta l4proto { tcp, udp } snat ip to 127.2.0.1:7000-7000
    ip saddr 127.0.0.6 meta l4proto udp snat ip to 127.2.0.1:7001-7001
    ip saddr 127.1.0.5 meta l4proto udp snat ip to 127.2.0.2:7000-7000
    ip6 saddr fd00::5 meta l4proto udp snat ip6 to [fd00:2::1]:7000-7000
  }
}
"""
CLIENTS = [ip_network("127.0.0.0/28"), ip_network("fd00::/64")]


@pytest.mark.parametrize("read_all", [True, False], ids=["all are read", "the kernel looks for them"])
def test_flows_that_leave_from_a_port_are_deleted(read_all: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients' flows of the protocol, of both IP versions; not those of other ports, protocols and sources, nor those
    that are not translated."""
    monkeypatch.setattr(conntrack, "reading_all_is_quicker", lambda *_: read_all)
    udp, tcp = socket.IPPROTO_UDP, socket.IPPROTO_TCP
    with new_namespace() as space, space.entered():
        for command in ("link set lo up", "address add fd00::5/128 dev lo", "address add fd00::6/128 dev lo"):
            assert space.run("ip", *command.split()).returncode == 0
        assert space.run("nft", TRANSLATED).returncode == 0
        for source in (ONE, OTHER, "127.1.0.5", "127.0.0.7"):
            begin_flow(source, "127.9.0.1")
        begin_flow(ONE, "127.9.0.2")
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
            sender.bind(("fd00::5", 7000))
            sender.sendto(b"x", ("fd00::6", 9))
        with socket.create_server(("127.9.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), source_address=(ONE, 0)).close()
        assert conntrack.most_to_one_place(CLIENTS) == {udp: 3, tcp: 1}
        assert conntrack.forget_on_ports(CLIENTS, [(udp, 7002), (tcp, 7001)]) == 0
        assert conntrack.forget_on_ports(CLIENTS, [(udp, 7000), (udp, 7002)]) == 3
        assert conntrack.forget_on_ports(CLIENTS, [(udp, 7000), (udp, 7002)]) == 0
        assert conntrack.forget_on_ports(CLIENTS, [(tcp, 7000)]) == 1
        assert conntrack.most_to_one_place(CLIENTS) == {udp: 2}


def test_what_clients_hold_beyond_their_limit_is_deleted() -> None:
    """Of a client that holds more than its limit the closed connections go, and then what is beyond it; another
    client's stay, closed ones too."""
    most, subnets = 3, [ip_network("127.0.0.0/28")]
    with new_namespace() as space, space.entered():
        space.run("ip", "link", "set", "lo", "up")
        assert space.run("nft", TRACKED).returncode == 0
        with socket.create_server(("127.9.0.1", 9)) as server:
            for address in (ONE, ONE, OTHER):
                with socket.create_connection(server.getsockname(), source_address=(address, 0)):
                    server.accept()[0].close()
        for _ in range(most + 2):
            begin_flow(ONE, "127.9.0.1")
        begin_flow(OTHER, "127.9.0.1")
        closed, beyond = 2, 2
        flows = ClientFlows(subnets)
        assert asyncio.run(flows.forget_excess(most)) == closed + beyond
        left = Counter(str(ip_address(entry.source)) for entry in conntrack.begun_from(subnets))
        assert left == {ONE: most, OTHER: 2}
        assert asyncio.run(flows.forget_excess(most)) == 0
