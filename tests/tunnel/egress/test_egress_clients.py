"""Clients and each other, and who says that they are a client."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from tests.support.egress.capture import mac_of, send
from tests.support.egress.packets import FIN, SYN, echo, tcp, token, udp
from tests.support.egress.vantage import EXIT_OF, INSIDE_OF, WEB_OF, vantage_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.egress.vantage import Vantage

LAN = {4: "198.51.100.34", 6: "2001:db8:1:2::2"}  # the second client's own, outside the tunnel


@pytest.fixture(scope="module")
def router(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vantage]:
    """An exit that forwards between its other networks too."""
    with vantage_on(backend, tmp_path_factory.mktemp("router"), egress={"forward_others": True}) as made:
        yield made


def settled_at_the_other(exit_: Vantage, version: int) -> None:
    """The second client has got whatever the exit let through to it."""
    exit_.settle(version)
    exit_.arrives_from_inside(version, exit_.clients[1])


@pytest.mark.parametrize("version", [4, 6])
def test_clients_do_not_reach_each_other(exit_: Vantage, version: int) -> None:
    """Nothing that a client sends to another's address in the tunnel arrives; the sender is told."""
    one, other = (client.address[version] for client in exit_.clients)
    packets = [udp(one, other, token()), tcp(one, other, token(), 22), echo(one, other, token())]
    for packet in packets:
        exit_.is_rejected(packet)
    settled_at_the_other(exit_, version)
    for packet in packets:
        assert exit_.clients[1].seen.carrying(packet.carried) == []


@pytest.mark.parametrize("version", [4, 6])
def test_nothing_from_outside_reaches_a_client_address(exit_: Vantage, version: int) -> None:
    """Nobody outside gets into the tunnel by a client's address in it, be it with what begins no connection."""
    client, web = exit_.clients[0].address[version], WEB_OF[version]
    packets = [udp(web, client, token()), *(tcp(web, client, token(), 22, flags=flags) for flags in (SYN, SYN | FIN))]
    allowed = udp(web, EXIT_OF[version], token())
    mac = mac_of(exit_.world.exit, "wan")
    send(exit_.world.internet, "net0", *(packet.whole() for packet in (*packets, allowed)), to_mac=mac)
    exit_.settle(version)
    exit_.arrives_from_inside(version, exit_.clients[0])
    for packet in packets:
        assert exit_.clients[0].seen.carrying(packet.carried) == []


@pytest.mark.under_kernel
@pytest.mark.parametrize("version", [4, 6])
def test_a_client_sends_from_its_own_address_alone(exit_: Vantage, version: int) -> None:
    """A client sends from its own address alone: not another's, not the exit's, not one of the internet."""
    one, other = (client.address[version] for client in exit_.clients)
    stranger = {4: "192.0.2.200", 6: "2001:db8:ee::1"}[version]
    for source in (other, INSIDE_OF[version], EXIT_OF[version], LAN[version], stranger):
        exit_.is_stopped(udp(source, WEB_OF[version], token()))
    exit_.reaches(udp(one, WEB_OF[version], token()))


@pytest.mark.parametrize("version", [4, 6])
def test_a_source_that_the_tunnel_lets_through_does_not_leave(exit_: Vantage, version: int) -> None:
    """Where somebody has given a peer more addresses than its own, what comes from them leaves no more."""
    stranger = {4: "192.0.2.200", 6: "2001:db8:ee::1"}[version]
    packet = udp(stranger, WEB_OF[version], token())
    member = exit_.clients[0].member
    before = exit_.exit.facts()
    with exit_.appliance.standing_still():
        exit_.exit.sh(f"wg set {{wg}} peer {member.key} allowed-ips {member.addresses},{stranger}")
        exit_.is_stopped(packet)
        exit_.exit.sh(f"wg set {{wg}} peer {member.key} allowed-ips {member.addresses}")
    assert exit_.exit.facts() == before


@pytest.mark.parametrize("version", [4, 6])
def test_a_neighbour_with_a_client_address_does_not_get_out(router: Vantage, version: int) -> None:
    """A neighbour of the exit's that sends from an address of the tunnel's, to use the exit without a session, does
    not get out; from its own address the exit, which is a router, forwards it."""
    exit_ = router
    exit_.exit.sh("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.lan2.rp_filter=0")
    client = exit_.clients[0].address[version]
    unused = str(ip_address(INSIDE_OF[version]) + 76)
    neighbour, mac = exit_.world.clients[1], mac_of(exit_.world.exit, "lan2")
    forged = [udp(source, WEB_OF[version], token()) for source in (client, unused)]
    own = udp(LAN[version], WEB_OF[version], token())
    send(neighbour, "eth0", *(packet.whole() for packet in (*forged, own)), to_mac=mac)
    assert str(exit_.far.await_carrying(own.carried).source) == LAN[version]
    for packet in forged:
        assert exit_.far.carrying(packet.carried) == []
