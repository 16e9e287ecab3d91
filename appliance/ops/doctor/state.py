"""Checks the state directory and the store. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.ops.doctor.finding import RESTART, Finding, failed, ok, unseen, warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.ops.doctor.facts import Facts, StateFile

OTHERS = 0o077  # permission bits of group and others


def state(facts: Facts) -> Finding:
    """Checks that one user owns the directory and its files, and that no other user may read them."""
    place, gathered = facts.settings.node.state_dir, facts.state
    if gathered is None and facts.machine.root:
        what = f"the user that {place} belongs to cannot read its files, or they are links or folders instead"
        return failed("state", what, f"ls -la {place}, then wg-appliance restore FILE")
    if gathered is None:
        return unseen("state", str(place))
    if not gathered.files:
        return warning("state", f"{place} is not there yet", "wg-appliance init")
    folder, *files = gathered.files
    foreign = [file for file in files if file.uid != folder.uid]
    if foreign:
        owner = f"chown --reference={folder.path} {_paths(foreign)}"
        return failed("state", f"{_paths(foreign)}: not of the user that {folder.path} belongs to", owner)
    open_files = [file for file in files if file.mode & OTHERS]
    if open_files:
        listed = ", ".join(f"{file.path} (mode {file.mode:04o})" for file in open_files)
        return failed("state", f"other users may read {listed}", f"chmod go= {_paths(open_files)}")
    if folder.mode & OTHERS:
        return warning("state", f"other users may enter {place} (mode {folder.mode:04o})", f"chmod go= {place}")
    return ok("state", f"{place} is its owner's alone")


def store(facts: Facts) -> Finding:
    """Checks that the store is undamaged, is the appliance's, and has a schema that this program knows."""
    if facts.state is None:
        return unseen("store", "the store")
    inspection = facts.state.store
    if inspection is None:
        return warning("store", "there is none yet", "wg-appliance init")
    if inspection.damage is not None:
        what, _, mend = inspection.damage.rpartition("; ")
        return failed("store", what, mend.removeprefix("bring a backup back with: "))
    if not inspection.ours:
        return failed("store", "the file is another program's", "set node.state_dir to another directory")
    versions = f"version {inspection.version}, this wg-appliance knows up to {inspection.newest}"
    if inspection.version > inspection.newest:
        return failed("store", versions, "install the newer wg-appliance again")
    if inspection.version < inspection.newest:
        return warning("store", f"{versions}: it is brought up to date at the next start", RESTART)
    return ok("store", f"whole, version {inspection.version}")


def _paths(files: Sequence[StateFile]) -> str:
    return " ".join(str(file.path) for file in files)
