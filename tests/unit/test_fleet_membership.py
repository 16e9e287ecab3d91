"""The server's part in a fleet: a single host has none of it, and what a fleet lacks makes an exit no worse."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

import appliance.server
from appliance.domain.errors import HostError
from appliance.server import fleet_build, fleet_membership
from appliance.server.fleet_membership import FleetMembership


def test_a_single_host_imports_nothing_of_a_fleet() -> None:
    """The server is imported whole, and neither the fleet nor its packages are."""
    code = (
        "import sys, appliance.server.run, appliance.cli, appliance.cli.serve, appliance.ops.doctor.gather;"
        "print([m for m in sys.modules if m.startswith(('appliance.fleet', 'nats', 'nacl', 'cryptography'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n", done


@pytest.mark.parametrize("error", [HostError("membership.json is damaged"), RecursionError("too deep")], ids=repr)
def test_a_fleet_that_cannot_be_taken_part_in_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """It is logged, and the task goes on: one that crashes would make the exit unready."""
    stopping, tries = asyncio.Event(), 0

    async def build(*_: Any) -> None:
        nonlocal tries
        tries += 1
        if tries == 2:
            stopping.set()
        raise error

    monkeypatch.setattr(fleet_build, "build", build)

    async def serving(_: Any) -> Any:
        return SimpleNamespace(run=asyncio.Event.wait)

    monkeypatch.setattr(fleet_build, "serving", serving)
    monkeypatch.setattr(fleet_membership, "RETRY_S", 0.0)
    monkeypatch.setattr(fleet_membership, "LOOK_S", 0.0)
    here: Any = SimpleNamespace(state=SimpleNamespace(in_fleet=True))
    asyncio.run(FleetMembership(here).run(stopping))
    assert tries == 2
    assert "this host takes no part in its fleet, until it is tried again" in caplog.text
    assert str(error) in caplog.text


def test_an_exit_goes_on_while_its_part_in_a_fleet_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The import of the fleet's packages takes long on a slow host."""
    imported = threading.Event()

    class Slow:
        """Finds the module of this host's part when the event loop has gone on."""

        def find_spec(self, name: str, *_: object) -> None:
            if name == fleet_build.__name__:
                assert imported.wait(30), "the event loop stands still"
                raise HostError("it was imported")

    async def run() -> None:
        stopping = asyncio.Event()
        here: Any = SimpleNamespace(state=SimpleNamespace(in_fleet=True))
        running = asyncio.create_task(FleetMembership(here).run(stopping))
        await asyncio.sleep(0)
        imported.set()
        stopping.set()
        await running

    monkeypatch.delitem(sys.modules, fleet_build.__name__)
    monkeypatch.delattr(appliance.server, "fleet_build")
    monkeypatch.setattr(sys, "meta_path", [Slow(), *sys.meta_path])
    asyncio.run(run())
