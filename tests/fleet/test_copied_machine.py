"""A virtual machine is copied with all that it has, and both run."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet.whole_fleet import whole_fleet
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import WEB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fleet.appliances import FleetAppliance
    from tests.support.fleet.whole_fleet import WholeFleet


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_machine_that_is_copied_refuses_work_for_the_fleet(tmp_path: Path) -> None:
    """So does its copy: `/readyz`, doctor and `fleet status` say so, and the hub asks neither. Each goes on as a single
    exit; once the copy is stopped the other one is back."""
    backend = backend_here()
    if backend is None:
        pytest.skip(NO_ROOT)
    with whole_fleet(backend, tmp_path, exits=3, clients=1) as fleet:
        _copied(fleet)


def _copied(fleet: WholeFleet) -> None:
    hub, ams, other = fleet.exits
    client, token = fleet.clients[0], fleet.token()
    with _as_a_copy_of(ams, other):
        for each in (ams, other):
            until(lambda each=each: "two machines are nod_" in _unready(each), f"{each.name} says so")  # type: ignore[misc]
            until(lambda each=each: "two machines are nod_" in _failed(each), "doctor says so")  # type: ignore[misc]
        until(lambda: hub.regions() == {"fsn"}, "the hub asks neither")
        until(lambda: "two machines are nod_" in _faults(hub)["ams1"], "the hub names it")
        opened = ams.open(token, region="ams")
        client.wg_quick(opened["wg_config"])
        assert client.address_seen() == ams.host.ip
    fleet.heal()
    until(lambda: _unready(ams) == "", "it is ready")
    assert client.get(f"{WEB}/ip", seconds=10) == ams.host.ip
    client.close()
    hub.close(opened["id"], token)


def _unready(exit_: FleetAppliance) -> str:
    answer = exit_.api("GET", "/readyz")
    return "" if answer.status == 200 else str(answer.body)


def _failed(exit_: FleetAppliance) -> str:
    """Returns what doctor says of the exit's place in the fleet, empty while it is no failure."""
    checks = json.loads(exit_.attempt("doctor", "--json").stdout)["checks"]
    (said,) = [check for check in checks if check["check"] == "fleet-member"]
    return str(said["what"]) if said["status"] == "failed" else ""


def _faults(hub: FleetAppliance) -> dict[str, str]:
    nodes = json.loads(hub.admin("fleet", "status", "--json"))["nodes"]
    return {node["name"]: str(node["fault"]) for node in nodes}


@contextmanager
def _as_a_copy_of(exit_: FleetAppliance, other: FleetAppliance) -> Iterator[None]:
    """The other host has the state of this one, on which no session is live; afterwards its own."""
    own = other.state.with_name("own")
    other.stop()
    exit_.kill()
    shutil.move(other.state, own)
    shutil.copytree(exit_.state, other.state)
    exit_.start()
    other.start_unready()
    try:
        yield
    finally:
        other.stop()
        shutil.rmtree(other.state)
        shutil.move(own, other.state)
        other.start()
