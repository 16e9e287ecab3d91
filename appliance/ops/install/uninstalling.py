"""Implements `wg-appliance uninstall`: restores the host; keeps configuration and state unless asked to purge them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from appliance.config.load import read_settings
from appliance.ops.install import host, host_cleanup, plan
from appliance.ops.install.layout import SERVICE, USER
from appliance.ops.install.record import Record
from appliance.ops.install.step import remove_steps
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from appliance.ops.install.layout import Layout
    from appliance.ops.install.plan import Program


def uninstall(layout: Layout, program: Program, report: Callable[[str], None], *, purge: bool) -> None:
    """Uninstalls the appliance. Missing parts are not an error: an interrupted uninstall can be repeated.

    Raises HostError if a step fails.
    """
    settings = read_settings(layout.config if layout.config.exists() else None, {}, layout.config)
    state = StateDir(settings.node.state_dir)
    name = settings.node.name if state.in_fleet else None
    record = Record(layout.record)
    packages = record.packages
    if not any(path.exists() for path in (layout.programs, layout.sysctls, layout.config)):
        report("wg-appliance is not installed here")
    _stop(layout, program, report)
    host_cleanup.clean_up(settings, state, report)
    steps = plan.of_program(layout, program, settings, record, userspace=True)
    remove_steps(steps, report)
    host.run("systemctl", "daemon-reload")
    remove_steps([plan.programs(layout)], report)
    if purge:
        _keep_backups(layout.backups, report)
        remove_steps(plan.of_operator(layout, settings, ""), report)
        if state.path.exists():
            report(f"{state.path} is kept: it does not belong to the user {USER}")
    elif layout.config.exists() or state.path.exists():
        report(f"{layout.config.parent} and {state.path} are kept; --purge removes them")
    if name is not None:
        report(
            f"it is in a fleet still; if it does not come back: wg-appliance fleet forget {name} on the hub, or, if it "
            "was the hub, wg-appliance fleet leave --force on the others"
        )
    if packages:
        names = " ".join(packages)
        report(f"packages that were installed for it are kept; to remove them: apt-get purge {names}")


def is_in_fleet(layout: Layout) -> bool:
    """Tells whether the appliance that is installed here is in a fleet. Raises HostError."""
    settings = read_settings(layout.config if layout.config.exists() else None, {}, layout.config)
    return StateDir(settings.node.state_dir).in_fleet


def _keep_backups(folder: Path, report: Callable[[str], None]) -> None:
    """Gives the backups to root; they are kept even by a purge. Each contains the server key, and the removed user's
    uid may soon be another user's."""
    if not folder.is_dir():
        return
    for path in (folder, *folder.iterdir()):
        os.chown(path, 0, 0, follow_symlinks=False)
    report(f"{folder} is kept and now belongs to root: each backup contains the server key; remove it when not needed")


def _stop(layout: Layout, program: Program, report: Callable[[str], None]) -> None:
    """Stops all units: the appliance's first, which would restart a tunnel that ends."""
    installed = [name for name in program.units if "/" not in name and (layout.units / name).exists()]
    for name in sorted(installed, key=lambda name: (name != SERVICE, name)):
        host.run("systemctl", "disable", "--now", name)
        host.succeeds("systemctl", "reset-failed", name)  # clears a failed state
        report(f"service {name}: stopped and disabled")
