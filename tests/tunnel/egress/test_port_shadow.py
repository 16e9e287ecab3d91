"""A client sends from a port on which the host listens: it takes nothing of what comes to the service."""

from __future__ import annotations

import secrets
import sys
import time
from contextlib import ExitStack, contextmanager
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

    from tests.support.egress.capture import Seen
    from tests.support.egress.servers import UdpServer

pytestmark = pytest.mark.black_box

TUNNEL_PORT = 51820
SERVICE, LATER_SERVICE = 20000, 21000  # of the host, each on TCP and UDP
PUBLISHED = 22000  # of a container
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


# A rule that many a host has: whatever leaves by an interface is masqueraded. It is younger than the exit's table.
MASQUERADE = "-t nat -A POSTROUTING -o wan -j MASQUERADE"


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
        for port in (SERVICE, LATER_SERVICE, PUBLISHED):
            _shadow(vantage, port)
        services = {SERVICE: _services(vantage, stack, SERVICE)}
        vantage.appliance.stop()
        vantage.appliance.start()
        for program in ("iptables-nft", "ip6tables-nft"):
            vantage.world.exit.run(program, *MASQUERADE.split())
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
    """A service that appears on a port from which a client sends all the time gets what is sent to it within two looks;
    as does a container to which such a port is forwarded. No other flow of a client is cut, though a resolver of the
    host asks 200 times a second from random ports."""
    flows, began = Flows(ground), time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(_busy_resolver(ground))
        stack.enter_context(_published(ground, PUBLISHED))
        ground.services[LATER_SERVICE] = _services(ground.vantage, stack, LATER_SERVICE)
        for protocol in MAKERS:
            for version in (4, 6):
                _moves_away(ground, protocol, version, LATER_SERVICE)
                assert ground.is_answered(ground.call(protocol, version, LATER_SERVICE), LATER_SERVICE)
        show(f"over both IP versions, TCP and UDP, the service has its port after {time.monotonic() - began:.0f} s")
        _moves_away(ground, "udp", 4, PUBLISHED)
    flows.go_on()


@pytest.mark.long
def test_a_busy_resolver_cuts_no_flow(ground: Ground) -> None:
    """A resolver of the host asks 200 times a second from random ports for a minute: every flow of a client goes on."""
    flows, logged = Flows(ground), len(ground.vantage.appliance.log())
    with _busy_resolver(ground):
        until_s = time.monotonic() + 65
        while time.monotonic() < until_s:
            flows.go_on()
            time.sleep(1)
    assert "begun anew" not in ground.vantage.appliance.log()[logged:]


class Flows:
    """A client's, of both IP versions and from several ports."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._ways = [(version, FREE + secrets.randbelow(2000)) for version in (4, 6) for _ in range(10)]
        self._outside = self._seen()

    def go_on(self) -> None:
        """They leave from the ports from which they have always left, and answers to these arrive."""
        assert self._seen() == self._outside
        client = self._ground.vantage.clients[0].seen
        for (version, _), port in zip(self._ways, self._outside, strict=True):
            client.await_carrying(self._ground.call("udp", version, port).carried)

    def _seen(self) -> list[int]:
        return [self._ground.leaves("udp", version, port) for version, port in self._ways]


def _moves_away(ground: Ground, protocol: str, version: int, port: int) -> None:
    """A client that sends from this port all the time leaves from another one soon, and takes nothing more."""
    moved = f"what a client sends over {protocol} leaves from another port than {port}"
    until(lambda: ground.leaves(protocol, version, port) != port, moved, APPEARS_WITHIN_S, every=0.5)
    assert not ground.is_with_the_client(ground.call(protocol, version, port))


@contextmanager
def _published(ground: Ground, port: int) -> Iterator[None]:
    """As a container engine does it, without a socket; the second client's host is the container."""
    rule = f"PREROUTING -t nat -i wan -p udp --dport {port} -j DNAT --to-destination 198.51.100.34:80"
    ground.vantage.world.exit.run("iptables-nft", "-A", *rule.split())
    try:
        yield
    finally:
        ground.vantage.world.exit.run("iptables-nft", "-D", *rule.split())


@contextmanager
def _busy_resolver(ground: Ground) -> Iterator[None]:
    space = ground.vantage.world.exit
    process = space.start(sys.executable, str(RESOLVER), WEB_IP, WEB_IP6, "200")
    try:
        yield
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(timeout=60)
