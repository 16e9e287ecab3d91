"""Three whole appliances, a hub and two spokes, each in a region of its own: spokes work for each other; one dies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.fleet_outage import dead_exit
from tests.support.fleet.patience import closed, opened
from tests.support.fleet.whole_fleet import WholeFleet, whole_fleet
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.sessions import client_key
from tests.support.tunnel.world import WEB, WEB6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.fleet.appliances import FleetAppliance
    from tests.support.tunnel.client import Client

pytestmark = pytest.mark.timeout(900)  # an emulated kernel takes minutes


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeFleet]:
    backend = backend_here()
    if backend is None:
        pytest.skip(NO_ROOT)
    with whole_fleet(backend, tmp_path_factory.mktemp("three"), exits=3, clients=3) as made:
        yield made


@dataclass(frozen=True)
class Tunnel:
    """Was opened at `api` in the region of `exit_`. `third`: the exit that is neither, where they are two."""

    client: Client
    api: FleetAppliance
    exit_: FleetAppliance
    third: FleetAppliance
    session: dict[str, Any]

    @property
    def key(self) -> str:
        return client_key(self.session["wg_config"])


def tunnel_of(fleet: WholeFleet, number: int, further: int, token: str) -> Tunnel:
    """Opens at one exit in the region of the one that is so much further, and brings a client's tunnel up."""
    api, exit_ = fleet.exits[number], fleet.exits[(number + further) % 3]
    third = next(each for each in fleet.exits if each not in (api, exit_))
    tunnel = Tunnel(fleet.clients[number], api, exit_, third, opened(api, token, exit_.region))
    tunnel.client.wg_quick(tunnel.session["wg_config"])
    return tunnel


@pytest.mark.parametrize("further", [1, *(pytest.param(n, marks=pytest.mark.long) for n in (0, 2))])
def test_each_api_opens_elsewhere_and_a_third_one_ends_it(three: WholeFleet, further: int) -> None:
    """One token for all. Traffic leaves from the address of the region's exit; DELETE through an API that has not
    opened the session, and does not have it, cuts at once, and is seen by all."""
    three.heal()  # each names the regions of all
    token = three.token()
    tunnels = [tunnel_of(three, number, further, token) for number in range(3)]

    ids = {tunnel.session["id"] for tunnel in tunnels}
    for api in three.exits:
        assert {each["id"] for each in api.api("GET", "/v1/sessions", token=token).body["sessions"]} >= ids
    for tunnel in tunnels:
        host = tunnel.exit_.host
        assert tunnel.session["public_ip"] == host.ip
        assert (tunnel.client.address_seen(), tunnel.client.address_seen(WEB6)) == (host.ip, host.ip6)
        shown = [api.session(tunnel.session["id"], token) for api in three.exits]
        assert [each["region"] for each in shown] == [tunnel.exit_.region] * 3
        assert [tunnel.key in each.peers() for each in three.exits] == [each is tunnel.exit_ for each in three.exits]

    for tunnel in tunnels:
        closed(tunnel.third, tunnel.session["id"], token)
        assert tunnel.key not in tunnel.exit_.peers()
        assert tunnel.client.get(f"{WEB}/ip", seconds=1) == ""
        assert all(api.session(tunnel.session["id"], token)["terminated_at"] for api in three.exits)
        tunnel.client.down()


def test_sessions_open_elsewhere_soon_when_one_dies(three: WholeFleet, show: Callable[[str], None]) -> None:
    """Without a word, as a host that lost its power. Nobody answers 500 meanwhile, and `available` and the regions
    never disagree."""
    seen = dead_exit(three, three.exits[2])
    assert seen.wrong == []
    show(str(seen))
    three.exits[2].revive_host()
    three.heal()
