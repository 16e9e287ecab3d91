"""Whole appliances go on with another hub: the standby is promoted, the others find it, and the old one yields."""

from __future__ import annotations

import base64
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from appliance.fleet.claims.claims import key_name
from appliance.fleet.hub.files import hub_place
from appliance.fleet.membership.identity import FleetFolder
from tests.support.fleet.appliances import FleetAppliance, await_regions, exits_of
from tests.support.fleet.whole_fleet import WholeFleet, await_token, is_reported
from tests.support.fleet.world import new_fleet_world
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.client import clients_of
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


KEY = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]  # an emulated kernel takes minutes


@pytest.fixture
def three(tmp_path: Path) -> Iterator[WholeFleet]:
    """The hub, its standby and a spoke, in this order."""
    backend = backend_here()
    if backend is None:
        pytest.skip(NO_ROOT)
    with (
        new_fleet_world(3, 1) as world,
        clients_of(world, tmp_path) as clients,
        exits_of(world, backend, tmp_path, fleet={"report": "1s"}) as exits,
    ):
        hub, standby, spoke = exits
        hub.admin("fleet", "init")
        standby.admin("node", "join", hub.admin("fleet", "invite", "--hub").strip(), "--yes")
        spoke.admin("node", "join", hub.admin("fleet", "invite").strip(), "--yes")
        await_regions(exits, {each.region for each in exits})
        yield WholeFleet(world, exits, clients)


def roles(exit_: FleetAppliance) -> dict[str, tuple[str, bool]]:
    """What `fleet status` says of each exit, and the generation under ''."""
    found: Any = json.loads(exit_.admin("fleet", "status", "--json"))
    return {node["name"]: (node["role"], node["alive"]) for node in found["nodes"]} | {"": found["generation"]}


def reported(exit_: FleetAppliance, session: str) -> None:
    until(lambda: is_reported(exit_, session), f"the hub was told of {session}")


def knows_key_of(hub: FleetAppliance, public_key: str) -> bool:
    """Tells whether the hub's ledger has a claim of the key. To claim it would change that."""
    membership = FleetFolder(hub.state).membership()
    assert membership is not None
    name = key_name(membership.fleet_key, base64.b64decode(public_key)).encode()
    return any(name in file.read_bytes() for file in hub_place(hub.state).streams.rglob("*.blk"))


def folded(hub: FleetAppliance) -> dict[str, tuple[int, int]]:
    with closing(sqlite3.connect(hub.store)) as db:
        rows = db.execute("SELECT session_id, sum(bytes_in), sum(bytes_out) FROM fleet_sessions GROUP BY session_id")
        return {session: (rx, tx) for session, rx, tx in rows}


def own(exits: list[FleetAppliance]) -> dict[str, tuple[int, int]]:
    found = {}
    for each in exits:
        with closing(sqlite3.connect(each.store)) as db:
            found |= {row[0]: row[1:] for row in db.execute("SELECT id, bytes_in, bytes_out FROM sessions")}
    return found


def test_the_standby_takes_over_and_the_old_hub_stands_by(three: WholeFleet, show: Callable[[str], None]) -> None:
    """The hub is killed for good: tokens made afterwards are good everywhere, and nothing reported is lost. As it comes
    back with a change of its own it opens no port, follows, and lists what it had changed."""
    world, exits = three.world, three.exits
    hub, standby, spoke = exits
    until(lambda: roles(spoke)[standby.name] == ("standby", True), "the spoke knows the standby")
    token = hub.token()
    for each in exits:
        await_token(each, token)
    (client,) = three.clients
    opened = [hub.open(token, region=each.region) for each in (standby, spoke)]
    client.wg_quick(opened[1]["wg_config"])
    assert client.address_seen() == spoke.host.ip
    for each, session in zip((standby, spoke), opened, strict=True):
        reported(each, session["id"])

    phone = {"name": "phone", "region": spoke.region, "client_public_key": KEY}
    assert spoke.api("POST", "/v1/devices", phone, token).status == 201

    refused = standby.attempt("fleet", "promote")
    assert refused.returncode == 1
    assert "the hub answers at" in refused.stderr
    assert "is the standby: run this command there" in spoke.attempt("fleet", "promote").stderr

    world.cut_off(hub.host)
    hub.admin("account", "create", "unseen")
    hub.lose_host()
    assert client.address_seen() == spoke.host.ip
    named = f"if {hub.name} is lost, wg-appliance fleet promote on {standby.name} makes that host the hub"
    until(lambda: named in spoke.attempt("fleet", "invite").stderr, "the spoke names the standby")
    assert named in spoke.admin("fleet", "status")
    said = standby.attempt("fleet", "promote", check=True).stderr
    show(next(line for line in said.splitlines() if "this host is the hub of generation 2 now" in line))
    left = [standby, spoke]
    wanted = {hub.name: ("standby", False), standby.name: ("hub", True), spoke.name: ("spoke", True), "": 2}
    for each in left:
        until(lambda each=each: roles(each) == wanted, f"{each.name} follows")  # type: ignore[misc]
    later = standby.token("later")
    for each in left:
        await_token(each, later)
        await_token(each, token)
    await_regions(left, {each.region for each in left})
    assert spoke.open(later, region=standby.region)["public_ip"] == standby.host.ip
    assert client.address_seen() == spoke.host.ip
    client.down()
    spoke.close(opened[1]["id"], token)
    until(lambda: folded(standby) == own(left), "the new hub knows all of both")
    assert min(folded(standby)[opened[1]["id"]]) > 0

    hub.host.bring_back()
    world.heal()
    hub.space = hub.host.exit
    hub.start()
    wanted |= {hub.name: ("standby", True)}
    for each in exits:
        until(lambda each=each: roles(each) == wanted, f"{each.name} has the old hub as the standby")  # type: ignore[misc]
    await_token(hub, later)
    assert "its standby now" in hub.log()
    (change,) = json.loads(hub.admin("fleet", "conflicts", "--json"))
    assert change["row"]["name"] == "unseen"
    hub.admin("fleet", "conflicts", "--dismiss")
    assert json.loads(hub.admin("fleet", "conflicts", "--json")) == []

    until(lambda: knows_key_of(standby, KEY), "the spoke has claimed its device's key anew")
    wish = {"region": standby.region, "client_public_key": KEY}
    assert standby.api("POST", "/v1/sessions", wish, later).status == 400
    assert standby.api("POST", "/v1/sessions", wish, token).status == 409


def test_a_hub_that_was_cut_off_yields_when_the_cut_heals(
    three: WholeFleet,
) -> None:
    """Both lead meanwhile, each those that it reaches; the older generation yields while it runs."""
    world, exits = three.world, three.exits
    hub, standby, spoke = exits
    until(lambda: roles(spoke)[standby.name] == ("standby", True), "the spoke knows the standby")
    world.cut_off(hub.host)
    standby.admin("fleet", "promote")
    until(lambda: roles(spoke)[standby.name] == ("hub", True), "the spoke follows")
    assert roles(hub)[hub.name] == ("hub", True)
    world.heal()
    wanted = {hub.name: ("standby", True), standby.name: ("hub", True), spoke.name: ("spoke", True), "": 2}
    for each in exits:
        until(lambda each=each: roles(each) == wanted, f"{each.name} follows the newer one")  # type: ignore[misc]
