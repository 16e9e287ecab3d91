"""The ground of the fleet's tests, on exits that know nothing of each other: what it says of cuts and losses holds."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support import netns
from tests.support.fleet.appliances import FleetAppliance, exits_of
from tests.support.fleet.world import FleetWorld, new_fleet_world
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.client import CURL, Client, clients_of
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import WEB, WEB6

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fleet.world import ExitSpace

pytestmark = pytest.mark.timeout(900)  # an emulated kernel takes minutes
PORT = 7422
REFUSED, SILENT = 7, 28  # curl's: nobody listens there; no answer in time


@dataclass
class Ground:
    world: FleetWorld
    exits: list[FleetAppliance]
    clients: list[Client]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Two exits, and a client of each with a tunnel."""
    backend, folder = backend_here(), tmp_path_factory.mktemp("fleet")
    if backend is None:
        pytest.skip(NO_ROOT)
    with (
        new_fleet_world(exits=2, clients=2) as world,
        clients_of(world, folder) as clients,
        exits_of(world, backend, folder) as exits,
    ):
        for exit_, client in zip(exits, clients, strict=True):
            client.wg_quick(exit_.open(exit_.token())["wg_config"])
        yield Ground(world, exits, clients)


def dialled(sender: ExitSpace, address: str) -> int:
    """How a connection to a port on which nobody listens ends, as curl's status."""
    command = (*CURL, "--max-time", "1", f"http://{address}:{PORT}/")
    return sender.exit.run(*command, check=False).returncode


def passes(sender: ExitSpace, receiver: ExitSpace) -> bool:
    """Whether a datagram arrives, which asks for no way back."""
    with socket_in(receiver) as heard, socket_in(sender) as sent:
        heard.bind(("", PORT))
        heard.settimeout(1)
        sent.sendto(b"x", (receiver.ip, PORT))
        try:
            return heard.recv(10) == b"x"
        except TimeoutError:
            return False


def socket_in(host: ExitSpace) -> socket.socket:
    """A socket stays in the namespace in which it was made."""
    with netns.Namespace(host.exit.name).entered():
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def test_clients_leave_from_the_addresses_of_their_exits(ground: Ground) -> None:
    for exit_, client in zip(ground.exits, ground.clients, strict=True):
        assert exit_.regions() == {exit_.region}
        assert client.address_seen() == exit_.host.ip
        assert client.address_seen(WEB6) == exit_.host.ip6


def test_a_way_between_exits_is_cut_and_healed(ground: Ground) -> None:
    """Both ways or one way, for both IP versions, without a word; clients of both notice nothing."""
    world, (fsn, ams) = ground.world, ground.world.hosts

    assert dialled(fsn, ams.ip) == dialled(ams, f"[{fsn.ip6}]") == REFUSED
    world.cut(fsn, ams)
    assert dialled(fsn, ams.ip) == dialled(ams, fsn.ip) == dialled(ams, f"[{fsn.ip6}]") == SILENT
    assert [client.address_seen() for client in ground.clients] == [fsn.ip, ams.ip]
    world.heal()
    assert dialled(fsn, ams.ip) == REFUSED

    world.cut_one_way(fsn, ams)
    assert not passes(fsn, ams)
    assert passes(ams, fsn)
    world.heal()


def test_a_lost_host_is_silent_and_comes_back(ground: Ground) -> None:
    """Its connections do not even end; after the boot its exit serves the session again that it had."""
    fsn, ams = ground.exits
    token = ams.token()
    opened = ams.open(token)

    ams.lose_host()
    assert dialled(fsn.host, ams.host.ip) == SILENT
    assert ground.clients[0].address_seen() == fsn.host.ip
    assert ground.clients[1].get(f"{WEB}/ip", seconds=1) == ""

    ams.revive_host()
    assert "terminated_at" not in ams.session(opened["id"], token)
    until(lambda: ground.clients[1].get(f"{WEB}/ip", 5) == ams.host.ip, "its client has its tunnel again")
