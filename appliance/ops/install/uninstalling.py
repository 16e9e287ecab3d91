"""Implements `wg-appliance uninstall`: restores the host; keeps configuration, state and backups unless told not to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from appliance.config.load import read_settings
from appliance.ops.install import host, host_cleanup, plan
from appliance.ops.install.layout import SERVICE, USER
from appliance.ops.install.record import Record
from appliance.ops.install.step import take_back
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from appliance.ops.install.layout import Layout
    from appliance.ops.install.plan import Program


def uninstall(layout: Layout, program: Program, say: Callable[[str], None], *, purge: bool) -> None:
    """Uninstalls the appliance. Missing parts are not an error: an interrupted uninstall can be repeated.

    Raises HostError if a step fails.
    """
    settings = read_settings(layout.config if layout.config.exists() else None, {}, layout.config)
    state = StateDir(settings.node.state_dir)
    record = Record(layout.record)
    packages = record.packages
    if not any(path.exists() for path in (layout.programs, layout.sysctls, layout.config)):
        say("wg-appliance is not installed here")
    _stop(layout, program, say)
    host_cleanup.leave(settings, state, say)
    steps = plan.of_program(layout, program, settings, record, userspace=True)
    take_back(steps, say)
    host.run("systemctl", "daemon-reload")
    take_back([plan.programs(layout)], say)
    if purge:
        _keep_backups(layout.backups, say)
        take_back(plan.of_operator(layout, settings, ""), say)
        if state.path.exists():
            say(f"{state.path} stays: it is not the user {USER}'s")
    elif layout.config.exists() or state.path.exists():
        say(f"{layout.config.parent} and {state.path} stay; with --purge they go")
    if packages:
        names = " ".join(packages)
        say(f"packages that were installed for it stay: apt-get purge {names}")


def _keep_backups(folder: Path, say: Callable[[str], None]) -> None:
    """Gives the backups to root; they are kept even by a purge. Each contains the server key, and the removed user's
    uid may soon be another user's."""
    if not folder.is_dir():
        return
    for path in (folder, *folder.iterdir()):
        os.chown(path, 0, 0, follow_symlinks=False)
    say(f"{folder} stays, root's now: backups, with the server key in each; rm -r it when none is needed")


def _stop(layout: Layout, program: Program, say: Callable[[str], None]) -> None:
    """Stops all units, the appliance's first: it would restart a tunnel that ends."""
    installed = [name for name in program.units if "/" not in name and (layout.units / name).exists()]
    for name in sorted(installed, key=lambda name: (name != SERVICE, name)):
        host.run("systemctl", "disable", "--now", name)
        host.succeeds("systemctl", "reset-failed", name)  # clears a failed state
        say(f"service {name}: stopped, and not started any more")
