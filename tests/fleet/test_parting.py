"""Whole appliances part: one exit is drained by the hub, leaves, comes back, and is forgotten."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.api.exit_under_test import new_key
from tests.support.fleet.whole_fleet import await_token, whole_fleet
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fleet.appliances import FleetAppliance

pytestmark = pytest.mark.timeout(900)  # an emulated kernel takes minutes


def nodes(exit_: FleetAppliance) -> dict[str, Any]:
    return {each["name"]: each for each in json.loads(exit_.admin("fleet", "status", "--json"))["nodes"]}


def is_reported(hub: FleetAppliance, session_id: str) -> bool:
    with closing(sqlite3.connect(hub.store)) as store:
        found = store.execute("SELECT 1 FROM fleet_sessions WHERE session_id = ?", (session_id,)).fetchone()
    return found is not None


def test_an_exit_parts_from_its_fleet_and_comes_back(tmp_path: Path) -> None:
    """No server is restarted; what is single again answers for its own region alone, for the tokens that it had."""
    backend = backend_here()
    if backend is None:
        pytest.skip(NO_ROOT)
    with whole_fleet(backend, tmp_path, clients=0, fleet={"report": "1s"}) as fleet:
        hub, spoke = fleet.exits
        token = fleet.token()

        hub.admin("node", "drain", spoke.name)
        assert json.loads(spoke.admin("node", "status", "--json"))["drained"]
        until(lambda: hub.regions() == {hub.region}, "its region is listed no more")
        hub.admin("node", "resume", spoke.name)
        fleet.heal()

        opened = hub.open(token, region=spoke.region)
        spoke.admin("fleet", "leave", "--yes")
        assert spoke.regions() == {spoke.region}
        until(lambda: list(nodes(hub)) == [hub.name], "the hub lists it no more")
        told = hub.api("GET", f"/v1/sessions/{opened['id']}", token=token)
        assert (told.status, told.body.get("terminated_reason")) == (200, "drained"), told
        await_token(spoke, token)
        assert spoke.open(token, region=spoke.region)["public_ip"] == spoke.host.ip

        invited = hub.admin("fleet", "invite").strip()
        spoke.admin("node", "join", invited, "--yes")
        fleet.heal()
        key, _ = new_key()
        lost = hub.open(token, region=spoke.region, client_public_key=key)
        spoke.admin("device", "add", "alice/phone")
        until(lambda: is_reported(hub, lost["id"]), "the hub has been told of the session")
        assert hub.admin("fleet", "forget", spoke.name, "--yes") == (
            f"alice/phone: was on {spoke.name}; make it anew: wg-appliance device add alice/phone\n"
        )
        hub.admin("device", "add", "alice/phone")
        assert hub.open(token, region=hub.region, client_public_key=key)["public_ip"] == hub.host.ip
        assert hub.api("GET", f"/v1/sessions/{lost['id']}", token=token).status == 200
        until(lambda: spoke.regions() == {spoke.region}, "it is cut off")
        until(lambda: list(nodes(hub)) == [hub.name], "the hub lists it no more")
        spoke.admin("fleet", "leave", "--force", "--yes")
        hub.admin("fleet", "leave", "--yes")
        assert [each.regions() for each in fleet.exits] == [{hub.region}, {spoke.region}]


@pytest.mark.long
def test_a_forgotten_exit_that_comes_back_says_which_devices_others_have(tmp_path: Path) -> None:
    """It has its devices still; `fleet status`, doctor and the log name that of which the hub has another by now."""
    backend = backend_here()
    if backend is None:
        pytest.skip(NO_ROOT)
    with whole_fleet(backend, tmp_path, clients=0, fleet={"report": "1s"}) as fleet:
        hub, spoke = fleet.exits
        fleet.token()
        for name in ("alice/phone", "alice/pad"):
            spoke.admin("device", "add", name)
        hub.admin("fleet", "forget", spoke.name, "--yes")
        hub.admin("device", "add", "alice/phone")
        spoke.admin("fleet", "leave", "--force", "--yes")
        spoke.admin("node", "join", hub.admin("fleet", "invite").strip(), "--yes")
        until(lambda: "1 (alice/phone)" in spoke.admin("fleet", "status"), "it is named")
        said = json.loads(spoke.attempt("doctor", "--json").stdout)["checks"]
        (devices,) = [each for each in said if each["check"] == "fleet-devices"]
        assert (devices["status"], devices["what"].rpartition(" ")[2]) == ("warning", "alice/phone")
        assert "another exit has too: 1 (alice/phone)" in spoke.log()
