"""Networks that are not the internet: what clients send there does not leave the exit."""

from __future__ import annotations

import pytest

from tests.support.egress.packets import echo, tcp, token, udp
from tests.support.egress.servers import udp_server
from tests.support.egress.vantage import INSIDE_OF, Vantage
from tests.support.tunnel.waiting import until

REJECTED = (
    *("10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.254", "192.168.0.1", "192.168.255.254"),
    *("100.64.0.1", "100.127.255.254", "169.254.169.254", "169.254.0.1", "240.0.0.1", "255.255.255.254"),
    *("fc00::1", "fd00:ec2::254", "fdff:ffff::1"),
    # Through a NAT64: 10.0.0.1, 169.254.169.254 and 127.0.0.1.
    *("64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "64:ff9b:1::a9fe:a9fe"),
)
# The kernel has nobody to tell about these, or drops them by itself.
STOPPED = ("0.0.0.1", "127.0.0.1", "127.255.255.254", "224.0.0.251", "239.255.255.250", "255.255.255.255")
STOPPED_6 = ("::1", "fe80::1", "ff02::1", "ff05::2", "ff0e::1")
PASS = (
    *("192.0.2.55", "198.51.100.200", "8.8.8.8", "9.255.255.255", "11.0.0.1", "172.15.255.255", "172.32.0.1"),
    *("100.63.255.255", "100.128.0.1", "169.253.255.255", "192.167.255.255", "223.255.255.1"),
    *("2001:db8:ff::1", "2606:4700::1111", "fbff::1", "fec0::1", "64:ff9b::808:808", "64:ff9b::b00:1"),
    "64:ff9b:1::808:808",
)
OWN = ("203.0.113.1", "198.51.100.17", "198.51.100.33", "2001:db8:2::1", "2001:db8:1:1::1")


def client_for(exit_: Vantage, address: str) -> str:
    return exit_.clients[0].address[6 if ":" in address else 4]


@pytest.mark.parametrize("address", REJECTED)
def test_private_networks_are_prohibited(exit_: Vantage, address: str) -> None:
    """UDP, TCP and ICMP to a private, shared, link-local, metadata or reserved address: prohibited, and said so."""
    client = client_for(exit_, address)
    for packet in (udp(client, address, token()), tcp(client, address, token(), 80), echo(client, address, token())):
        exit_.is_rejected(packet)


@pytest.mark.parametrize("address", [*STOPPED, *STOPPED_6])
def test_nothing_leaves_to_loopback_or_multicast(exit_: Vantage, address: str) -> None:
    """Nor does anything leave to loopback, "this network", link-local IPv6, multicast and broadcast."""
    client = client_for(exit_, address)
    exit_.is_stopped(udp(client, address, token()))
    exit_.is_stopped(echo(client, address, token()))


@pytest.mark.parametrize("address", PASS)
def test_neighbouring_public_networks_are_reached(exit_: Vantage, address: str) -> None:
    """What borders on them, and the documentation ranges, pass."""
    client = client_for(exit_, address)
    for packet in (udp(client, address, token()), tcp(client, address, token(), 80), echo(client, address, token())):
        exit_.reaches(packet)


@pytest.mark.parametrize("address", ["10.0.0.1", "fc00::1"])
def test_fragments_to_a_private_network_are_prohibited(exit_: Vantage, address: str) -> None:
    """What is cut in two is prohibited as a whole."""
    packet = udp(client_for(exit_, address), address, token() + bytes(64))
    exit_.clients[0].send(*packet.fragments(32))
    exit_.settle(packet.version)
    assert exit_.far.carrying(packet.carried) == []


@pytest.mark.parametrize("address", OWN)
def test_other_addresses_of_the_host(exit_: Vantage, address: str) -> None:
    """Of the host itself a client reaches a resolver at the exit's address in the tunnel, and no other address."""
    version = 6 if ":" in address else 4
    client, inside = exit_.clients[0].address[version], INSIDE_OF[version]
    other, own = udp(client, address, token(), 53), udp(client, inside, token(), 53)
    with udp_server(exit_.world.exit, 53) as server:
        exit_.send(other)
        exit_.send(own)
        until(lambda: own.carried in server.received(), "the exit's address in the tunnel is reached")
        assert other.carried not in server.received()
    exit_.is_rejected(udp(client, address, token(), 53))
