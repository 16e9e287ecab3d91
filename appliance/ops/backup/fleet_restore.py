"""Restores who a host is in a fleet, with its store.

A host that is a member keeps its own files where the backup is of the same member: they are as new as those, or newer.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from appliance.config.state_file import sync_folder
from appliance.domain.errors import BackupError, HostError
from appliance.ops import trees
from appliance.ops.backup import fleet_files
from appliance.ops.backup.fleet_files import FILES, FOLDER, HUB, LEAVE
from appliance.store import integrity, store_files
from appliance.store.queries import fleet_traces

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from appliance.ops.backup.fleet_files import FleetHost
    from appliance.store.state_dir import StateDir


def to_restore(
    saved: Mapping[str, bytes], state: StateDir, store: Path, *, as_new_node: bool, source: Path
) -> dict[str, bytes] | None:
    """Returns what the files are to be after a restore, by name; None: as they are.

    `store`: the backup's, unpacked. `source`: the backup's file. Raises BackupError: the backup is of another host of a
    fleet than this one. Raises ValueError for what is damaged in the backup.
    """
    here, there = _present(state), fleet_files.member(saved)
    if as_new_node:
        if here is not None:
            raise BackupError(
                f"this host is {here.name} in a fleet: it can be restored as {here.name}, or leaves first ({LEAVE})"
            )
        return {}
    if here is None:
        return dict(saved) if saved else None
    if there is None:
        with integrity.reading(store) as db:
            node_id = fleet_traces.node_of(db)
        if node_id == here.node_id:  # it was made by a version that did not save the files
            return None
        of = "a host in no fleet" if node_id is None else "another host of a fleet"
    elif there.is_same(here):
        return None
    elif there.fleet_id == here.fleet_id:
        of = f"{there.name} ({there.role}) of this fleet"
    else:
        of = f"{there.name} of another fleet"
    raise BackupError(
        f"this host is {here.name} in a fleet, and {source} is of {of}: take this one out of its fleet first ({LEAVE})"
    )


def _present(state: StateDir) -> FleetHost | None:
    """Returns who this host is. None too where files are damaged or missing, which the backup's are to replace."""
    try:
        files = fleet_files.of_host(state)
        found = fleet_files.member(files)
    except (HostError, ValueError):
        return None
    return None if found is not None and found.role != "spoke" and HUB not in files else found


def present(state: StateDir) -> list[Path]:
    """Returns the files that are there. Raises OSError."""
    return [file for name in FILES if store_files.is_regular(file := state.path / FOLDER / name)]


def keep(files: Sequence[Path], kept: Path) -> None:
    """Gives the files a second name in the folder `kept`, which is on the same file system. Raises OSError."""
    if files:
        (kept / FOLDER).mkdir(mode=0o700)
        for file in files:
            os.link(file, kept / FOLDER / file.name)
        sync_folder(kept / FOLDER)


def put(unpacked: StateDir, state: StateDir) -> None:
    """Puts the files in place that are unpacked, and removes the others. Raises OSError.

    In their order: a host whose restore was cut short is a member once it has all of them.

    Raises ProgramFailed if something else is in their place, and cannot be removed.
    """
    folder = state.path / FOLDER
    if not folder.is_dir() or folder.is_symlink():
        if not os.path.lexists(unpacked.path / FOLDER) and not os.path.lexists(folder):
            return
        trees.remove(folder)
        folder.mkdir(mode=0o700)
    for name in FILES:
        new, file = unpacked.path / FOLDER / name, folder / name
        if os.path.lexists(file) and not store_files.is_regular(file):
            trees.remove(file)
        if new.exists():
            new.replace(file)
        else:
            file.unlink(missing_ok=True)
    sync_folder(folder)


def are_missing(state: StateDir) -> bool:
    """Tells whether the store is of a host in a fleet, and the files are not there. Raises OSError."""
    with integrity.reading(state.store) as db:
        return fleet_traces.node_of(db) is not None and not state.in_fleet
