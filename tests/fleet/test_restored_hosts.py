"""Whole appliances come back from their backups: a hub that has lost its disk, a spoke, and a spoke twice."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli.backups import members
from tests.support.fleet.whole_fleet import await_token, is_reported, whole_fleet
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fleet.appliances import FleetAppliance

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]  # an emulated kernel takes minutes


def nodes(exit_: FleetAppliance) -> dict[str, Any]:
    return {each["name"]: each for each in json.loads(exit_.admin("fleet", "status", "--json"))["nodes"]}


def lose_and_restore(exit_: FleetAppliance, saved: Path) -> None:
    """It comes back on an empty disk, and is ready. What it has changed on the host is put back before."""
    exit_.stop()
    shutil.rmtree(exit_.state)
    exit_.admin("restore", str(saved))
    exit_.start()


def test_hosts_come_back_from_their_backups(tmp_path: Path) -> None:
    """Nobody puts a hand on the others. Of two machines from one backup none is used for the fleet."""
    backend = backend_here()
    if backend is None:
        pytest.skip(NO_ROOT)
    with whole_fleet(backend, tmp_path, exits=2, clients=0, fleet={"report": "1s"}) as fleet:
        hub, spoke = fleet.exits
        token = fleet.token()
        opened = hub.open(token, region=spoke.region)
        until(lambda: is_reported(spoke, opened["id"]), "the hub was told of the session")
        saved = {each: tmp_path / f"{each.name}.tar" for each in fleet.exits}
        for each, file in saved.items():
            each.admin("backup", str(file))
        later = fleet.token("later")

        lose_and_restore(hub, saved[hub])
        fleet.heal()
        until(lambda: set(nodes(hub)) == {hub.name, spoke.name}, "it lists both")
        await_token(spoke, later, 401)  # as it was made after the backup
        second = hub.open(token, region=spoke.region)
        assert hub.api("GET", f"/v1/sessions/{opened['id']}", token=token).status == 200
        until(lambda: is_reported(spoke, second["id"]), "the hub was told of what the backup has not")

        lose_and_restore(spoke, saved[spoke])
        fleet.heal()
        third = hub.open(token, region=spoke.region)
        assert len({opened["id"], second["id"], third["id"]}) == 3
        until(lambda: is_reported(spoke, third["id"]), "the hub was told of what came after")
        assert "the store lacked what the fleet was told of 1 sessions" in spoke.log()


def test_two_machines_from_one_backup(tmp_path: Path) -> None:
    """Both are left out, and say so; without the copy the other is in the fleet again."""
    backend = backend_here()
    if backend is None:
        pytest.skip(NO_ROOT)
    with whole_fleet(backend, tmp_path, exits=3, clients=0, fleet={"report": "1s"}) as fleet:
        hub, spoke, copy = fleet.exits
        copy.admin("fleet", "leave", "--yes")
        copy.stop()
        spoke.admin("backup", str(tmp_path / "spoke.tar"))
        shutil.rmtree(copy.state / "fleet")
        copy.store.unlink()
        (copy.state / "fleet").mkdir(mode=0o700)
        for name, data in members(tmp_path / "spoke.tar").items():  # its configuration is that of another machine
            if name.startswith(("fleet/", "store")):
                (copy.state / name).write_bytes(data)
        copy.start()
        until(lambda: hub.regions() == {hub.region}, "neither of them is offered")
        until(lambda: "two machines" in spoke.attempt("doctor", "--json").stdout, "doctor says so")
        copy.stop()
        fleet.exits.remove(copy)
        fleet.heal()
