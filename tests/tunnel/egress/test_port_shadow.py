"""A client sends from a port on which the host listens: it takes nothing of what comes to the service."""

from __future__ import annotations

import secrets
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.egress.capture import mac_of, send
from tests.support.egress.packets import ACK, SYN, Packet, echo, tcp, token, udp
from tests.support.egress.servers import tcp_servers, udp_server
from tests.support.egress.vantage import EXIT_OF, WEB_OF, Vantage, vantage_on
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import WEB_IP, WEB_IP6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import Popen

    from tests.support.egress.capture import Seen
    from tests.support.egress.servers import UdpServer

pytestmark = pytest.mark.black_box

TUNNEL_PORT = 51820
SERVICE, LATER_SERVICE = 20000, 21000  # of the host, each on TCP and UDP
FREE = 30000  # no service's, and in the range
FAR_PORT = 7002
APPEARS_WITHIN_S = 60.0  # two looks, 10 s apart, and a slow machine
SECOND_WEB = {4: "203.0.113.11", 6: "2001:db8:2::11"}
KEPT: dict[str, object] = {"keep_on_exit": True}
MAKERS = {"udp": udp, "tcp": tcp}
RESOLVER = Path(__file__).parents[2] / "support" / "egress" / "busy_resolver.py"

# The far host has nothing on these ports, and says nothing of it: it could be one that an attacker does not control.
SILENT = """
table inet silent {
  chain output {
    type filter hook output priority filter;
    tcp flags & rst != 0 drop
    icmp type destination-unreachable drop
    icmpv6 type destination-unreachable drop
  }
}
"""


class Ground:
    """An exit whose host has services, which a client shadowed before the server started."""

    def __init__(self, vantage: Vantage, services: dict[int, UdpServer]) -> None:
        self.vantage = vantage
        self.services = services
        self._to_exit = mac_of(vantage.world.exit, "wan")

    def leaves(self, protocol: str, version: int, port: int, to: str | None = None, far_port: int = FAR_PORT) -> int:
        """The port with which a client's packet from this port leaves the exit."""
        client = self.vantage.clients[0].address[version]
        packet = MAKERS[protocol](client, to or WEB_OF[version], token(), far_port, source_port=port)
        return self.vantage.reaches(packet).ports[0]

    def call(self, protocol: str, version: int, port: int, far_port: int = FAR_PORT) -> Packet:
        """The far host sends to this port of the exit, from the port to which clients have sent."""
        packet = MAKERS[protocol](WEB_OF[version], EXIT_OF[version], token(), port, source_port=far_port)
        send(self.vantage.world.internet, "net0", packet.whole(), to_mac=self._to_exit)
        return packet

    def is_with_the_client(self, packet: Packet) -> bool:
        """Whether the client has got it, once it must have."""
        version, client = packet.version, self.vantage.clients[0]
        # What is sent after it, to a flow that is the client's, and over the same way.
        mark = udp(client.address[version], WEB_OF[version], token(), 9)
        outside = self.vantage.reaches(mark).ports[0]
        after = self.call("udp", version, outside, far_port=9)
        client.seen.await_carrying(after.carried)
        return bool(client.seen.carrying(packet.carried))

    def is_answered(self, packet: Packet, port: int) -> bool:
        """Whether the service of the host has got it: UDP itself, of TCP the host's kernel answers."""
        if packet.protocol == 17:
            received = self.services[port].received
            return bool(until(lambda: packet.carried in received(), "the service has it"))
        return bool(until(lambda: self._accepts(packet, port), "the host accepts the connection"))

    def _accepts(self, packet: Packet, port: int) -> list[Seen]:
        return [
            seen
            for seen in self.vantage.far.packets()
            if not seen.sent and seen.protocol == 6 and seen.tcp_flags == SYN | ACK
            if seen.source == packet.destination and seen.ports == (port, FAR_PORT)
        ]


@pytest.fixture(scope="module")
def ground(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with vantage_on(backend, tmp_path_factory.mktemp("shadow"), wireguard=KEPT) as vantage, ExitStack() as stack:
        internet = vantage.world.internet
        internet.run("nft", "-f", "-", text_input=SILENT)
        for version, length in ((4, 32), (6, 128)):
            nodad = ("nodad",) if version == 6 else ()
            internet.run("ip", "address", "add", f"{SECOND_WEB[version]}/{length}", "dev", "net0", *nodad)
        for port in (SERVICE, LATER_SERVICE):
            _shadow(vantage, port)
        services = {SERVICE: _services(vantage, stack, SERVICE)}
        vantage.appliance.stop()
        vantage.appliance.start()
        yield Ground(vantage, services)


def _shadow(vantage: Vantage, port: int) -> None:
    """Both protocols, both IP versions: at first no service has the port."""
    for version in (4, 6):
        client = vantage.clients[0].address[version]
        for make in MAKERS.values():
            packet = make(client, WEB_OF[version], token(), FAR_PORT, source_port=port)
            assert vantage.reaches(packet).ports[0] == port


def _services(vantage: Vantage, stack: ExitStack, port: int) -> UdpServer:
    for address in ("0.0.0.0", "::"):  # noqa: S104  a service of the host is on all addresses
        stack.enter_context(tcp_servers(vantage.world.exit, address, port))
    return stack.enter_context(udp_server(vantage.world.exit, port))


@pytest.mark.under_kernel
@pytest.mark.parametrize("version", [4, 6])
def test_answers_of_the_tunnel_are_not_taken(ground: Ground, version: int) -> None:
    """A client that sends from the tunnel's own port to a host, behind which another client is, does not get what that
    one sends to the exit."""
    outside = ground.leaves("udp", version, TUNNEL_PORT)
    assert not ground.is_with_the_client(ground.call("udp", version, TUNNEL_PORT))
    assert outside != TUNNEL_PORT


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_service_is_not_impersonated(ground: Ground, protocol: str, version: int) -> None:
    """Nor what is sent to a service of the host; also where its flow is older than the service and the server."""
    outside = ground.leaves(protocol, version, SERVICE)
    call = ground.call(protocol, version, SERVICE)
    assert not ground.is_with_the_client(call)
    assert ground.is_answered(call, SERVICE)
    assert outside != SERVICE


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize("port", [FREE, TUNNEL_PORT, SERVICE], ids=["free", "the tunnel's", "a service's"])
def test_one_inside_port_has_one_outside_port(ground: Ground, port: int, protocol: str, version: int) -> None:
    """At all destinations, on which hole punching and games rest; and a free port is kept."""
    ways = [(None, 9001), (None, 9002), (SECOND_WEB[version], 9001), (SECOND_WEB[version], 30000)]
    outside = {ground.leaves(protocol, version, port, to, far_port) for to, far_port in ways}
    assert len(outside) == 1
    if port == FREE:
        assert outside == {FREE}


@pytest.mark.parametrize("version", [4, 6])
def test_what_has_no_ports_still_leaves(ground: Ground, version: int) -> None:
    """Ping, and protocols that are neither TCP nor UDP."""
    client, web = ground.vantage.clients[0].address[version], WEB_OF[version]
    ping = echo(client, web, token())
    ground.vantage.reaches(ping)
    for protocol in (47, 99):  # GRE, and one that conntrack does not know
        ground.vantage.reaches(Packet(ping.source, ping.destination, protocol, bytes(4), token()))


def test_a_listener_that_appears_later(ground: Ground, show: Callable[[str], None]) -> None:
    """A service that appears on a port from which a client sends all the time gets what is sent to it within two looks.
    No other flow of a client is cut, though a resolver of the host asks 200 times a second from random ports."""
    vantage = ground.vantage
    ports = [secrets.randbelow(2000) + FREE for _ in range(20)]
    began = time.monotonic()
    before = [ground.leaves("udp", version, port) for version in (4, 6) for port in ports]
    with ExitStack() as stack:
        stack.callback(_end, vantage.world.exit.start(sys.executable, str(RESOLVER), WEB_IP, WEB_IP6, "200"))
        ground.services[LATER_SERVICE] = _services(vantage, stack, LATER_SERVICE)
        for protocol in MAKERS:
            for version in (4, 6):
                until(
                    lambda p=protocol, v=version: ground.leaves(p, v, LATER_SERVICE) != LATER_SERVICE,
                    "the client's flow leaves from another port",
                    APPEARS_WITHIN_S,
                    every=0.5,
                )
                call = ground.call(protocol, version, LATER_SERVICE)
                assert ground.is_answered(call, LATER_SERVICE)
                assert not ground.is_with_the_client(call)
    show(f"over both IP versions, TCP and UDP, the service has its port after {time.monotonic() - began:.0f} s")
    after = [ground.leaves("udp", version, port) for version in (4, 6) for port in ports]
    assert after == before


def _end(process: Popen[bytes]) -> None:
    process.terminate()
    process.wait(timeout=60)
