"""What leaves the exit for a client: from which address, how large, and what of it does not."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.support.egress.capture import mac_of, send
from tests.support.egress.packets import ACK, FIN, RST, SYN, echo, error_about, tcp, token, udp
from tests.support.egress.vantage import EXIT_OF, WEB_OF
from tests.support.tunnel.appliance_process import Appliance
from tests.support.tunnel.client import clients_of
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP6, WEB_IP6, new_world

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.egress.vantage import Vantage

HEADERS = {4: 40, 6: 60}  # of IP and TCP
TUNNEL_MTU = 1420
# Under an MTU of 1280 a link loses its IPv6 addresses and routes.
IPV6_ANEW = (
    f"ip link set wan mtu 1500; ip address replace {EXIT_IP6}/64 dev wan nodad; ip route replace ::/0 via {WEB_IP6}"
)


@pytest.mark.parametrize("version", [4, 6])
def test_packets_leave_from_the_public_address(exit_: Vantage, version: int) -> None:
    """UDP, TCP and ICMP leave from the exit's public address, and nothing from a client's own."""
    client, web = exit_.clients[0].address[version], WEB_OF[version]
    for packet in (udp(client, web, token()), tcp(client, web, token(), 443), echo(client, web, token())):
        exit_.reaches(packet)
    assert not any(str(seen.source) == client for seen in exit_.far.packets())


def test_from_the_address_that_is_told(once: str, tmp_path: Path) -> None:
    """On a host with several addresses clients' traffic leaves from the one that they are told and dial."""
    other = "203.0.113.2"
    with new_world() as world, clients_of(world, tmp_path) as (client, _):
        world.exit.run("ip", "address", "add", f"{other}/24", "dev", "wan")
        with Appliance(world, once, tmp_path / "appliance", {"node": {"public_ip": other}}).serving() as appliance:
            opened = appliance.open(appliance.token())
            assert (opened["public_ip"], f"Endpoint = {other}:" in opened["wg_config"]) == (other, True)
            client.wg_quick(opened["wg_config"])
            assert client.address_seen() == other


@pytest.mark.parametrize("version", [4, 6])
def test_a_fragmented_datagram_arrives_whole(exit_: Vantage, version: int) -> None:
    """A datagram in two pieces arrives with all of it, from the exit's public address."""
    client, web = exit_.clients[0].address[version], WEB_OF[version]
    begin, end = token(), token()
    exit_.clients[0].send(*udp(client, web, begin + bytes(2400) + end).fragments(1208))
    for mark in (begin, end):
        assert str(exit_.far.await_carrying(mark).source) == EXIT_OF[version]


@pytest.mark.parametrize("version", [4, 6])
def test_the_segment_size_is_what_the_tunnel_carries(exit_: Vantage, version: int) -> None:
    """A client that says too large a segment size is corrected to what its tunnel carries, and so is the answer; one
    that says a smaller one is not."""
    client, web = exit_.clients[0].address[version], WEB_OF[version]
    fits = TUNNEL_MTU - HEADERS[version]
    assert exit_.reaches(tcp(client, web, token(), 8000, mss=8960)).mss == fits
    assert exit_.reaches(tcp(client, web, token(), 8001, mss=1000)).mss == 1000
    answers = until(
        lambda: [s for s in exit_.clients[0].seen.packets() if _is_answer(s.protocol, s.payload, web == str(s.source))],
        "the web server answers",
    )
    assert answers[0].mss <= fits


def _is_answer(protocol: int, payload: bytes, from_web: bool) -> bool:
    return from_web and protocol == socket.IPPROTO_TCP and payload[13] == SYN | ACK


@pytest.mark.parametrize(
    ("version", "uplink", "carried"), [(4, 1400, 1320), (6, 1400, 1320), (4, 1200, 1200)], ids=["4", "6", "under 1280"]
)
def test_segment_size_of_a_narrow_uplink(exit_: Vantage, version: int, uplink: int, carried: int) -> None:
    """The segment size follows an uplink with a smaller MTU: the tunnel's is made smaller, and where that cannot be,
    the uplink's own counts."""
    client, web = exit_.clients[0].address[version], WEB_OF[version]
    exit_.exit.sh(f"ip link set wan mtu {uplink}")
    try:
        until(lambda: _tunnel_mtu(exit_) == max(carried, 1280), "the tunnel's MTU follows")
        assert exit_.reaches(tcp(client, web, token(), 443, mss=1460)).mss == carried - HEADERS[version]
    finally:
        exit_.exit.sh(IPV6_ANEW)
        until(lambda: _tunnel_mtu(exit_) == TUNNEL_MTU, "the tunnel's MTU is as before")


def _tunnel_mtu(exit_: Vantage) -> int:
    return int(exit_.exit.sh("cat /sys/class/net/{wg}/mtu"))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flags", [SYN | FIN, SYN | RST, RST], ids=["SYN and FIN", "SYN and RST", "RST of nothing"])
def test_tcp_of_no_connection_does_not_leave(exit_: Vantage, version: int, flags: int) -> None:
    """TCP that no connection begins with does not leave: it would with the client's own address."""
    client, web = exit_.clients[0].address[version], WEB_OF[version]
    exit_.is_stopped(tcp(client, web, token(), 443, flags=flags, source_port=41000 + flags))


@pytest.mark.black_box
@pytest.mark.parametrize("kind", [130, 133, 135, 137, 143, 151])
def test_discovery_does_not_leave(exit_: Vantage, kind: int) -> None:
    """Neighbour and listener discovery, which connection tracking leaves alone and so is not translated, does not
    leave with a client's own address, whatever its destination; nor does it come in to a client."""
    client = exit_.clients[0]
    out = error_about(client.address[6], WEB_IP6, token(), (kind, 0))
    client.send(out.whole())
    exit_.settle(6)
    assert exit_.far.carrying(out.carried) == []
    assert not any(str(seen.source) == client.address[6] for seen in exit_.far.packets())
    into = error_about(WEB_IP6, client.address[6], token(), (kind, 0))
    send(exit_.world.internet, "net0", into.whole(), to_mac=mac_of(exit_.world.exit, "wan"))
    exit_.arrives_from_inside(6, client)
    assert client.seen.carrying(into.carried) == []
