"""The daily backups of an installed appliance: off until asked for, the last seven kept, of use after a purge."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from installed import SERVICE

if TYPE_CHECKING:
    from pathlib import Path

    from installed import Installed
    from machine import Machine

TIMER, BACKUP = "wg-appliance-backup.timer", "wg-appliance-backup.service"
KEPT = 7


def shown(machine: Machine, unit: str, name: str) -> str:
    return machine.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()


def owners(machine: Machine, folder: Path) -> set[str]:
    inside = f"/{folder.relative_to(machine.root)}"
    return set(machine.run("find", inside, "-printf", "%u %m %y\\n").stdout.splitlines())


def test_daily_backups(appliance: Installed, program: Path) -> None:
    """Made by the service's user for its eyes alone, the oldest dropped; a purge leaves them as root's, to restore."""
    machine, brought = appliance.machine, appliance.bring(program)
    folder = machine.root / "var/lib/wg-appliance-backups"
    appliance.count_often()
    appliance.install(brought)
    assert shown(machine, TIMER, "ActiveState") == "inactive"
    machine.run("systemctl", "enable", "--now", TIMER)
    assert shown(machine, TIMER, "NextElapseUSecRealtime")

    machine.run("systemctl", "start", BACKUP)
    assert owners(machine, folder) == {"wg-appliance 700 d", "wg-appliance 600 f"}
    (made,) = folder.iterdir()
    earlier = [folder / f"wg-appliance-2020010{day}T000000Z.tar" for day in range(1, 1 + KEPT)]
    for copy in earlier:
        shutil.copy(made, copy)
    machine.run("systemctl", "start", BACKUP)
    assert len(list(folder.iterdir())) == KEPT
    assert made.exists()
    assert not earlier[0].exists()

    said = appliance.command("uninstall", "--purge")
    assert "/var/lib/wg-appliance-backups stays" in said
    assert owners(machine, folder) == {"root 700 d", "root 600 f"}
    appliance.install(brought)
    machine.run("systemctl", "start", BACKUP)
    assert owners(machine, folder) == {"wg-appliance 700 d", "wg-appliance 600 f"}
    machine.run("systemctl", "stop", SERVICE)
    appliance.command("restore", f"/var/lib/wg-appliance-backups/{made.name}")
    machine.run("systemctl", "start", SERVICE)
    appliance.ready()
    assert "owner" in appliance.command("account", "list")
