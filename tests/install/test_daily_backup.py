"""The daily backups of an installed appliance: off until they are asked for, the last seven kept."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.support.install.installed import BACKUPS, owners

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.install.installed import Installed
    from tests.support.install.machine import Machine

TIMER, BACKUP = "wg-appliance-backup.timer", "wg-appliance-backup.service"
KEPT = 7


def shown(machine: Machine, unit: str, name: str) -> str:
    return machine.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()


def test_daily_backups(appliance: Installed, program: Path) -> None:
    """Made by the service's user, for its eyes alone; of more than seven the oldest go."""
    machine = appliance.machine
    folder = machine.root / BACKUPS
    appliance.count_often()
    appliance.install(appliance.bring(program))
    assert shown(machine, TIMER, "ActiveState") == "inactive"
    machine.run("systemctl", "enable", "--now", TIMER)
    assert shown(machine, TIMER, "NextElapseUSecRealtime")

    machine.run("systemctl", "start", BACKUP)
    assert owners(machine, BACKUPS) == {"wg-appliance 700 d", "wg-appliance 600 f"}
    (made,) = folder.iterdir()
    earlier = [folder / f"wg-appliance-2020010{day}T000000Z.tar" for day in range(1, 1 + KEPT)]
    for copy in earlier:
        shutil.copy(made, copy)
    machine.run("systemctl", "start", BACKUP)
    assert len(list(folder.iterdir())) == KEPT
    assert made.exists()
    assert not earlier[0].exists()
