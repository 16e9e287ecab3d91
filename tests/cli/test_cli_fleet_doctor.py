"""What `doctor` and the commands of a host in a fleet say of what its store has."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from tests.support.fleet.fleet_host import FleetHost

if TYPE_CHECKING:
    from pathlib import Path


def checked(host: FleetHost, check: str) -> dict[str, Any]:
    """What doctor says under this name."""
    said = json.loads(host("doctor", "--json").out)["checks"]  # other checks may fail here
    found: dict[str, Any] = next(each for each in said if each["check"] == check)
    return found


def test_changes_that_the_fleet_took_back_are_warned_of(tmp_path: Path) -> None:
    """With the command that lists them, until they are dismissed."""
    host = FleetHost(tmp_path / "ams", "ams1", "ams")
    host.do("fleet", "init")
    assert checked(host, "fleet-conflicts")["status"] == "ok"
    with closing(sqlite3.connect(host.state.store)) as db, db:
        db.execute("INSERT INTO fleet_conflicts VALUES ('account', 'acc_1', NULL, 1)")
    said = checked(host, "fleet-conflicts")
    assert (said["status"], said["what"][-1]) == ("warning", "1")
    assert "wg-appliance fleet conflicts lists them" in said["mend"]
    host.do("fleet", "conflicts", "--dismiss")
    assert checked(host, "fleet-conflicts")["status"] == "ok"
