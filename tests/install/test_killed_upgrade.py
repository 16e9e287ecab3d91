"""SIGKILL in mid-upgrade, wherever it hits: tunnels stand, and the next upgrade or the next boot goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.install.host_state import host_state, require_unchanged
from tests.support.install.installed import first_token, packages_to_purge
from tests.support.install.programs import NEWER
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP

if TYPE_CHECKING:
    from tests.support.install.installed import Installed
    from tests.support.install.machine import Machine
    from tests.support.tunnel.client import Client

# What upgrade says just before it is killed; "" at its very beginning.
MOMENTS = (
    "",
    pytest.param(f"before-{NEWER}.tar: written", marks=pytest.mark.long),
    pytest.param(f"{NEWER}: unpacked", marks=pytest.mark.long),
    "current: linked",
)

# The one file is two processes: the one that unpacks it, and the program.
ITSELF = 2


def kill_at(machine: Machine, moment: str, *command: str) -> bool:
    """Run the command, and kill it with all that it started once it has said `moment`. False: it never did."""
    process = machine.start(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process, process.stdout as lines:
        if moment:
            met = any(moment in line.decode() for line in lines)
        else:
            met = until(lambda: len(_descendants(process.pid)) >= ITSELF, "the program runs", every=0.01)
        kill(process)
    return met


def kill(process: subprocess.Popen[bytes]) -> None:
    """With all that it started."""
    for pid in _descendants(process.pid):
        with suppress(ProcessLookupError):  # ended by itself meanwhile
            os.kill(pid, signal.SIGKILL)
    process.wait(timeout=60)


def _descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []
    return [found for child in map(int, children) for found in (child, *_descendants(child))]


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_next_upgrade_goes_on(
    appliance: Installed, client: Client, program: Path, newer_program: Path, moment: str
) -> None:
    """After the kill the session goes on; the next upgrade ends with the new version, and the session still there."""
    machine = appliance.machine
    appliance.count_often()
    session = appliance.open(first_token(appliance.install(appliance.bring(program))))
    client.wg_quick(session["wg_config"])
    newer = appliance.bring(newer_program)
    assert kill_at(machine, moment, newer, "upgrade")
    assert client.address_seen() == EXIT_IP

    machine.run(newer, "upgrade", seconds=300)
    assert appliance.version() == NEWER
    appliance.ready()
    assert [live["id"] for live in appliance.live_sessions()] == [session["id"]]
    assert client.address_seen() == EXIT_IP
    assert "is already installed" in machine.run(newer, "upgrade").stdout


def test_the_next_boot_goes_on(appliance: Installed, client: Client, program: Path, newer_program: Path) -> None:
    """Killed after the switch, and rebooted: the new version starts with the store, and an upgrade is done with it."""
    machine = appliance.machine
    appliance.count_often()
    session = appliance.open(first_token(appliance.install(appliance.bring(program))))
    client.wg_quick(session["wg_config"])
    newer = appliance.bring(newer_program)
    assert kill_at(machine, "current: linked", newer, "upgrade")
    machine.reboot()
    appliance.ready()
    assert appliance.version() == NEWER
    assert client.address_seen() == EXIT_IP
    machine.run(newer, "upgrade", seconds=300)
    assert "is already installed" in machine.run(newer, "upgrade").stdout


def test_uninstalled_after_a_killed_install(appliance: Installed, program: Path) -> None:
    """Killed in the middle of its self-test, install leaves nothing that uninstall does not take away."""
    machine, brought = appliance.machine, appliance.bring(program)
    before = host_state(machine)
    installing = machine.start(brought, "install")
    until(lambda: "wgst" in machine.run("ip", "-oneline", "link").stdout, "the self-test has its links")
    kill(installing)
    said = appliance.command("uninstall", "--purge")
    machine.run(*packages_to_purge(said), "--yes", "--autoremove")
    require_unchanged(machine, before)


def test_killed_on_the_way_back(
    appliance: Installed, client: Client, program: Path, newer_program: Path, broken_program: Path
) -> None:
    """Killed while it takes back a broken version: the next upgrade, to one that works, first ends the way back."""
    machine = appliance.machine
    appliance.count_often()
    session = appliance.open(first_token(appliance.install(appliance.bring(program))))
    client.wg_quick(session["wg_config"])
    assert kill_at(machine, "store.sqlite: restored", appliance.bring(broken_program), "upgrade")
    said = machine.run(appliance.bring(newer_program), "upgrade", seconds=300).stdout
    assert "was interrupted" in said
    assert appliance.version() == NEWER
    assert [live["id"] for live in appliance.live_sessions()] == [session["id"]]
    assert client.address_seen() == EXIT_IP
