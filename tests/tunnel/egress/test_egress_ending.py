"""A session ends: what it had going ends with it, whoever has its address next."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.egress.capture import Capture, mac_of, send
from tests.support.egress.packets import token, udp
from tests.support.egress.vantage import EXIT_OF, WEB_OF
from tests.support.tunnel.appliance_process import Appliance
from tests.support.tunnel.client import Client, clients_of
from tests.support.tunnel.waiting import standing_still, until
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB, WEB6, World, new_world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE_ADDRESS = {"subnet": "10.101.0.0/30", "subnet6": "fd65:7869:7400::/126"}
CLIENT_OF = {4: "10.101.0.2", 6: "fd65:7869:7400::2"}
PORT, FAR_PORT = 40000, 9
NEIGHBOUR, NEIGHBOUR_PORT = "198.51.100.34", 40001
NOBODY_HAS_THE_PORT = {4: (3, 3), 6: (1, 4)}  # ICMP, ICMPv6


# A neighbour's own translation, of flows that are not the tunnel's.
NEIGHBOURS = """
table ip neighbours {
  chain translation {
    type nat hook postrouting priority srcnat;
    ip saddr 198.51.100.0/24 oifname "wan" masquerade
  }
}
"""


ROUTER = {"forward_others": True}  # a neighbour's traffic goes through the host too


class Ground:
    """One client address, for one of two clients at a time."""

    def __init__(self, world: World, appliance: Appliance, clients: list[Client], far: Capture) -> None:
        self.world = world
        self.appliance = appliance
        self.clients = clients
        self.far = far
        self.token = appliance.token()

    def session(self, client: Client) -> str:
        """A new one of this client's, whose traffic flows; its id."""
        opened = self.appliance.open(self.token)
        assert f"Address = {CLIENT_OF[4]}/32" in opened["wg_config"]
        client.wg_quick(opened["wg_config"])
        assert (client.address_seen(WEB), client.address_seen(WEB6)) == (EXIT_IP, EXIT_IP6)
        return str(opened["id"])

    def begin_flow(self, client: Client, version: int) -> None:
        mark = token()
        packet = udp(CLIENT_OF[version], WEB_OF[version], mark, FAR_PORT, source_port=PORT)
        send(client.space, client.interface, packet.whole())
        assert self.far.await_carrying(mark).ports == (PORT, FAR_PORT)

    def begin_flow_of_a_neighbour(self) -> None:
        """The second client's, beside any tunnel."""
        self.world.exit.run("nft", "-f", "-", text_input=NEIGHBOURS)
        self.appliance.keep_tables_of_others()
        mark, space = token(), self.clients[1].space
        packet = udp(NEIGHBOUR, WEB_OF[4], mark, FAR_PORT, source_port=NEIGHBOUR_PORT)
        send(space, "eth0", packet.whole(), to_mac=mac_of(self.world.exit, "lan2"))
        assert str(self.far.await_carrying(mark).source) == EXIT_IP

    def go_on_with_flow(self, version: int, port: int = PORT) -> bytes:
        """From the internet's side; what the packet is known by."""
        mark = token()
        packet = udp(WEB_OF[version], EXIT_OF[version], mark, port, source_port=FAR_PORT)
        send(self.world.internet, "net0", packet.whole(), to_mac=mac_of(self.world.exit, "wan"))
        return mark


@contextmanager
def ground(backend: str, directory: Path) -> Iterator[Ground]:
    with ExitStack() as stack:
        world = stack.enter_context(new_world())
        clients = stack.enter_context(clients_of(world, directory))
        appliance = Appliance(world, backend, directory / "appliance", {"wireguard": ONE_ADDRESS, "egress": ROUTER})
        stack.enter_context(appliance.serving())
        yield Ground(world, appliance, clients, stack.enter_context(Capture(world.internet, "net0")))


@pytest.fixture
def made(backend: str, tmp_path: Path) -> Iterator[Ground]:
    with ground(backend, tmp_path) as made:
        yield made


def test_flows_end_with_their_session(made: Ground) -> None:
    """After DELETE a packet of a flow finds no client any more, over both IP versions, and whoever sent it is told;
    the client that gets the address next gets nothing of it. A download stands still. What a neighbour of the host has
    going through it goes on."""
    first, second = made.clients
    session = made.session(first)
    for version in CLIENT_OF:
        made.begin_flow(first, version)
    made.begin_flow_of_a_neighbour()
    with Capture(first.space, first.interface) as seen:
        for version in CLIENT_OF:
            seen.await_carrying(made.go_on_with_flow(version))
    download = first.start_download(1_000_000_000, "flow", slow_until="never")
    until(lambda: download.received() > 0, "the download has begun")

    made.appliance.close(session, made.token)
    made.session(second)
    with Capture(second.space, second.interface) as next_:
        for version in CLIENT_OF:
            mark = made.go_on_with_flow(version)
            until(lambda mark=mark: list(made.far.errors_about(mark)), "the sender is told")  # type: ignore[misc]  # mypy infers no lambda with a default
            (error,) = made.far.errors_about(mark)
            assert error.icmp == NOBODY_HAS_THE_PORT[version]
            assert next_.carrying(mark) == []
    with Capture(second.space, "eth0") as seen:
        seen.await_carrying(made.go_on_with_flow(4, NEIGHBOUR_PORT))
    standing_still(download.received)
