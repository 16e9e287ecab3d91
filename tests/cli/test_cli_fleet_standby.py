"""A standby leaves, is forgotten, and is restored on another machine: with the real nats-server on loopback."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest

from appliance.domain.clock import HostClock
from appliance.fleet.joining import leaving
from appliance.fleet.membership.identity import FleetFolder
from tests.support.fleet.fleet_host import FleetHost
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from appliance.fleet.membership.identity import Membership, NodeKeys


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FleetHost]:
    """A hub whose server runs."""
    fra = FleetHost(tmp_path / "fra", "fra1", "fra")
    with fra.served():
        fra.do("fleet", "init")
        yield fra


@pytest.fixture
def standby(hub: FleetHost, tmp_path: Path) -> FleetHost:
    ams = FleetHost(tmp_path / "ams", "ams1", "ams")
    stand_by(ams, hub)
    return ams


def stand_by(host: FleetHost, hub: FleetHost) -> None:
    host.do("node", "join", hub.do("fleet", "invite", "--hub").out.strip())
    assert roles(hub)[-1] == ("ams1", "standby")
    assert FleetFolder(host.state.path).hub_secrets() is not None


def identity(host: FleetHost) -> tuple[Membership, NodeKeys]:
    folder = FleetFolder(host.state.path)
    membership = folder.membership()
    assert membership is not None
    return membership, folder.keys()


def until_let_in_no_more(who: tuple[Membership, NodeKeys]) -> None:
    until(lambda: not asyncio.run(leaving.is_let_in(*who, HostClock())), "the hub lets its keys in no more")


def roles(host: FleetHost) -> list[tuple[str, str]]:
    return host.rows("SELECT name, role FROM fleet_members WHERE left_at IS NULL ORDER BY joined_at")


def files(host: FleetHost) -> set[str]:
    return {file.name for file in (host.state.path / "fleet").iterdir()}


def test_a_standby_parts_from_its_fleet(hub: FleetHost, standby: FleetHost) -> None:
    """Forgotten or gone by itself, it is let in no more, a hub's secrets are gone from it with the membership, and
    another standby can be invited. What was forgotten makes itself no hub beside the one that answers."""
    was = identity(standby)
    assert "ams1 had the fleet's keys" in hub.do("fleet", "forget", "ams1", "--yes").err
    until_let_in_no_more(was)
    assert "does not know this host" in standby.refused("fleet", "promote")
    standby.do("fleet", "leave", "--force", "--yes")
    assert files(standby) == {"keys.json"}
    keys, old = FleetFolder(standby.state.path).keys(), was[1]
    assert keys.node_id == old.node_id
    assert keys.seed != old.seed
    assert keys.xkey != old.xkey

    stand_by(standby, hub)
    was = identity(standby)
    with standby.served():
        until(standby.state.fleet_status.exists, "its server takes part")
        standby.do("fleet", "leave", "--yes")
    assert files(standby) == {"keys.json"}
    until_let_in_no_more(was)
    assert roles(hub) == [("fra1", "hub")]
    assert hub.do("fleet", "invite", "--hub").out.startswith("wgj1.")


def test_a_standby_on_another_machine(tmp_path: Path) -> None:
    """Its backup makes it the same standby there, let in by the same keys. Of a hub's nats-server it has no file, and
    once the hub is lost it is promoted."""
    fra, ams = FleetHost(tmp_path / "fra", "fra1", "fra"), FleetHost(tmp_path / "ams", "ams1", "ams")
    file = tmp_path / "ams.tar"
    with fra.served():
        fra.do("fleet", "init")
        stand_by(ams, fra)
        was = identity(ams)
        ams.do("backup", str(file))
        shutil.rmtree(ams.state.path)
        ams.do("restore", str(file))
        assert identity(ams) == was
        assert ams.rows("SELECT role FROM fleet") == [("standby",)]
        assert files(ams) == {"keys.json", "membership.json", "hub.json"}
        assert asyncio.run(leaving.is_let_in(*was, HostClock()))
    ams.do("fleet", "promote", "--force")  # it has followed nothing, as the server beside it does not
    assert ams.rows("SELECT role, gen FROM fleet") == [("hub", 2)]
