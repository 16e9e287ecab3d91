"""An exit seen from both sides: its clients' ends of their tunnels, and the link to the internet.

What must not pass is told by what was sent after it and did: packets of one client and one IP version stay in order.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

from tests.support import netns
from tests.support.egress.capture import Capture, Seen, send
from tests.support.egress.packets import ICMP6_PROHIBITED, ICMP_PROHIBITED, Packet, token, udp
from tests.support.tunnel.waiting import until
from tests.support.tunnel.watched_exit import watched_exit
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB_IP, WEB_IP6

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.tunnel.watched_exit import Member, WatchedExit

INSIDE, INSIDE6 = "10.101.0.1", "fd65:7869:7400::1"  # the exit's own addresses in the tunnel
WEB_OF, EXIT_OF, INSIDE_OF = {4: WEB_IP, 6: WEB_IP6}, {4: EXIT_IP, 6: EXIT_IP6}, {4: INSIDE, 6: INSIDE6}
PROHIBITED = {4: ICMP_PROHIBITED, 6: ICMP6_PROHIBITED}


class Inside:
    """A client's end of its tunnel."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.space, self.interface = member.client.space, member.client.interface
        addresses = (ip_address(prefix.partition("/")[0]) for prefix in member.addresses.split(","))
        self.address = {address.version: str(address) for address in addresses}
        self.seen = Capture(self.space, self.interface)

    def send(self, *packets: bytes) -> None:
        send(self.space, self.interface, *packets)


class Vantage:
    """`far`: the internet's link to the exit. `clients`: two."""

    def __init__(self, exit_: WatchedExit, far: Capture, clients: list[Inside]) -> None:
        self.exit = exit_
        self.world, self.appliance = exit_.world, exit_.appliance
        self.far = far
        self.clients = clients

    def send(self, packet: Packet, sender: Inside | None = None) -> None:
        """A client sends it: the first one unless another is named."""
        (sender or self.clients[0]).send(packet.whole())

    def settle(self, version: int, sender: Inside | None = None) -> None:
        """The internet has got everything that this client sent before and that was let through."""
        mark, client = token(), sender or self.clients[0]
        client.send(udp(client.address[version], WEB_OF[version], mark).whole())
        self.far.await_carrying(mark)

    def arrives_from_inside(self, version: int, receiver: Inside) -> None:
        """A client has got whatever the exit let through to it: a packet of the exit's own comes after that."""
        mark = token()
        with netns.Namespace(self.world.exit.name).entered():
            sender = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        with sender:
            sender.sendto(mark, (receiver.address[version], 9))
        receiver.seen.await_carrying(mark)

    def reaches(self, packet: Packet) -> Seen:
        """It comes out on the internet's side, of the exit's public address; as it was seen there."""
        self.send(packet)
        seen = self.far.await_carrying(packet.carried)
        assert str(seen.source) == EXIT_OF[packet.version]
        return seen

    def is_stopped(self, packet: Packet) -> None:
        """It does not come out on the internet's side."""
        self.send(packet)
        self.settle(packet.version)
        assert self.far.carrying(packet.carried) == []

    def is_rejected(self, packet: Packet) -> None:
        """It does not come out, and the client is told that it is prohibited."""
        self.is_stopped(packet)
        client = self.clients[0].seen
        error = until(lambda: next(client.errors_about(packet.carried), None), "the client is told")
        assert error is not None
        assert error.icmp == PROHIBITED[packet.version]


@contextmanager
def vantage_on(backend: str, directory: Path, **changes: dict[str, object]) -> Iterator[Vantage]:
    with watched_exit(backend, directory, **changes) as made, ExitStack() as stack:
        # Every packet is to be answered: by default a host tells one and the same sender once a second.
        made.sh("sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0")
        far = stack.enter_context(Capture(made.world.internet, "net0"))
        clients = [Inside(member) for member in made.members]
        for client in clients:
            stack.callback(client.seen.close)
        yield Vantage(made, far, clients)
