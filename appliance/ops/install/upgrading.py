"""Implements `wg-appliance upgrade`: moves to this version, or back to the one that ran.

Each stage is written to a journal before anything changes, so that the next upgrade can continue after a kill at any
instant. The tunnel is not touched: it belongs to the kernel, or to a service of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.config.load import read_settings
from appliance.domain.errors import EgressError, HostError
from appliance.network.admission.admission import Admission
from appliance.network.admission.choice import noted
from appliance.ops.backup.archive import open_backup
from appliance.ops.backup.create import write_backup
from appliance.ops.backup.restore import restore_backup
from appliance.ops.install import facts, plan, service
from appliance.ops.install.boot_forwarding import NoBootForwarding
from appliance.ops.install.file_steps import NoFile
from appliance.ops.install.layout import HUB_SERVICE, PROGRAM, SERVICE
from appliance.ops.install.record import Record, write_whole
from appliance.ops.install.step import apply_steps
from appliance.ops.install.versions import order
from appliance.store import integrity
from appliance.store.file_owner import acting_as_owner
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.config.settings import Settings
    from appliance.ops.install.layout import Layout
    from appliance.ops.install.plan import Program

READY_S = 30.0


@dataclass(frozen=True, slots=True)
class Move:
    """Describes an upgrade in progress. `back`: it has failed and is being undone."""

    old: str
    new: str
    backup: str
    back: bool = False


class Upgrade:
    def __init__(self, layout: Layout, program: Program, report: Callable[[str], None]) -> None:
        self._layout = layout
        self._program = program
        self._report = report
        self._journal = layout.programs / "upgrade.json"
        self._settings: Settings = read_settings(layout.config if layout.config.exists() else None, {}, layout.config)
        self._state = StateDir(self._settings.node.state_dir)

    def run(self) -> None:
        """Upgrades. Raises HostError if it refuses, or after a failed upgrade has been undone."""
        move = self._under_way()
        if move is None and not self._is_newer():
            return
        self._install_program()
        if move is not None:
            self._report(f"an upgrade from {move.old} to {move.new} was interrupted")
            move = self._resumed(move)
            if move is None and not self._is_newer():
                return
        self._go(move or self._begin())

    def _is_newer(self) -> bool:
        """Tells whether this program is newer than the installed one; False if it is the same.

        Raises HostError if nothing is installed, or this program is older.
        """
        installed, new = self._layout.installed_version(), self._program.version
        if installed is None:
            raise HostError("wg-appliance is not installed: run install instead of upgrade")
        if order(new) < order(installed):
            raise HostError(f"wg-appliance {installed} is installed, and {new} is older: it might not read the store")
        if installed == new:
            self._report(f"wg-appliance {new} is already installed")
        return installed != new

    def _install_program(self) -> None:
        """Installs the program's files and continues from there, where the service's user can read them too.

        Work on the service's files is done as that user, and may have to load modules meanwhile.
        """
        step = plan.program_files(self._layout, self._program)
        if not step.is_there():
            apply_steps([step], self._report)
            hand_over(step.path / PROGRAM)

    def _resumed(self, move: Move) -> Move | None:
        """Returns the interrupted upgrade if it is the one to continue; completes or undoes any other."""
        # If the new version was not switched to, or has come up since, the store has moved on since the backup.
        if not move.back and self._layout.installed_version() == move.old:
            self._journal.unlink()
            return None
        if not move.back and service.running_version() == move.new and self._fault() is None:
            self._finish(move)
            return None
        if move.back or move.new != self._program.version:
            self._undo(move)
            return None
        return move

    def _under_way(self) -> Move | None:
        try:
            return Move(**json.loads(self._journal.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def _begin(self) -> Move:
        installed, new = str(self._layout.installed_version()), self._program.version
        move = Move(installed, new, str(self._layout.programs / f"before-{new}.tar"))
        write_backup(self._state, self._layout.config, Path(move.backup))
        self._report(f"{move.backup}: written, a backup of {installed}")
        self._note(move)
        return move

    def _go(self, move: Move) -> None:
        self._switch(self._program, self._layout.version(move.old))
        fault = self._restart()
        if fault is not None:
            self._report(f"wg-appliance {move.new} is not ready within {READY_S:.0f} s: {fault}")
            self._undo(move)
            raise HostError(f"the upgrade to {move.new} failed: {fault}; {move.old} runs again")
        self._finish(move)

    def _finish(self, move: Move) -> None:
        # The new version runs, and keeps forwarding for its clients when the host's switch goes off.
        apply_steps([NoBootForwarding(self._layout.sysctls, Record(self._layout.record))], self._report)
        self._settle_hub(move.new)
        self._journal.unlink()
        self._remove_others(move)
        self._report(f"wg-appliance {move.new} runs and is ready; {move.old} is kept for going back")

    def _undo(self, move: Move) -> None:
        """Restores the version that ran. Each step may have been done already, by an upgrade killed meanwhile."""
        self._note(replace(move, back=True))
        service.stop()
        self._admit_all()
        self._restore(Path(move.backup))
        old = self._layout.version(move.old)
        self._switch(facts.program_in(old, move.old), self._layout.version(move.new))
        fault = self._restart()
        if fault is not None:
            raise HostError(f"wg-appliance {move.old} is back, and not ready: {fault}; see journalctl -u {SERVICE}")
        self._settle_hub(move.old)
        self._journal.unlink()
        self._report(f"wg-appliance {move.old}: runs again, and is ready")

    def _settle_hub(self, version: str) -> None:
        """Has a hub run this version's nats-server, once all else runs: other exits connect again by themselves."""
        running = service.running_hub()
        if running is not None and facts.is_other_hub(running, self._layout.version(version)):
            service.restart_hub()
            self._report(f"service {HUB_SERVICE}: restarted, as its nats-server or its unit is another one")

    def _admit_all(self) -> None:
        """Takes away what admits marked packets only: the version that ran may mark none. One that does adds it again.

        The table of the new version stands meanwhile, and blocks.
        """
        with acting_as_owner(self._state.path):
            mark = noted(self._state.admission)
        if mark is None:
            return
        try:
            Admission(self._settings.wireguard.interface, mark).admit_all()
        except EgressError as error:
            self._report(f"clients may be cut off: {error}; see ip rule")

    def _restore(self, backup: Path) -> None:
        """Restores the store if the new version has changed its schema or damaged it; keeps the new one aside."""
        with open_backup(backup) as opened:
            schema = opened.manifest.schema
        with acting_as_owner(self._state.path):
            changed = not integrity.has_schema(self._state.store, schema)
        if changed or self._state.unfinished_restore.exists():
            restored = restore_backup(backup, self._layout.config, {})
            self._report(f"{self._state.store}: restored; as it was found it is in {restored.kept_state}")

    def _switch(self, to: Program, other: Path) -> None:
        """Installs the files and units of a version, and removes units that only the other version has."""
        userspace = plan.has_userspace(self._layout)
        gone = sorted(facts.units_in(other).keys() - to.units.keys())
        steps = plan.of_version(self._layout, to, self._settings, userspace=userspace)
        hub = plan.hub_units(to)
        state = plan.hub_state(self._layout) if hub else []
        apply_steps([*(NoFile(self._layout.units / name) for name in gone), *state, *steps, *hub], self._report)

    def _restart(self) -> str | None:
        """Restarts the service. Returns None when it is ready, else the fault."""
        service.reload_units()
        before = service.restart()
        return service.wait_ready(self._settings.api, READY_S, after=before)

    def _fault(self) -> str | None:
        return service.wait_ready(self._settings.api, 0)

    def _note(self, move: Move) -> None:
        write_whole(self._journal, json.dumps(asdict(move)) + "\n", 0o600)

    def _remove_others(self, move: Move) -> None:
        """Removes all versions and backups but those of this upgrade: the previous version is kept until the next."""
        for path in self._layout.programs.iterdir():
            if path.is_dir() and not path.is_symlink() and path.name not in (move.old, move.new):
                shutil.rmtree(path)
        for path in self._layout.programs.glob("before-*.tar"):
            if path != Path(move.backup):
                path.unlink()


def hand_over(file: Path) -> None:
    """Replaces this process by the program in `file`, which upgrades to itself. Raises HostError if it cannot run."""
    if not file.is_file() or not file.stat().st_mode & stat.S_IXUSR:
        raise HostError(
            f"{file} is no program to upgrade to: name a wg-appliance-<version>-linux-<arch> (and chmod +x it)"
        )
    # https://pyinstaller.org/en/stable/advanced-topics.html: else its bootloader would act as a subprocess of this one.
    environment = os.environ | {"PYINSTALLER_RESET_ENVIRONMENT": "1"}
    try:
        os.execve(file, [PROGRAM, "upgrade"], environment)  # noqa: S606 (what the operator names)
    except OSError as error:
        raise HostError(f"cannot run {file}: {error.strerror}") from error
