"""Restores a backup: the present files are kept until the new ones are in place, and then kept aside."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from appliance.config.load import parse_settings, read_settings
from appliance.config.state_file import sync_folder
from appliance.domain.errors import ConfigError, HostError
from appliance.network.programs import ProgramFailed
from appliance.ops import trees
from appliance.ops.backup import fleet_files, fleet_restore
from appliance.ops.backup.archive import open_backup
from appliance.store import integrity, store_files
from appliance.store.file_owner import acting_as_owner
from appliance.store.migration import migrations
from appliance.store.queries import escrow, fleet_reports, fleet_traces
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from appliance.config.load import Settings
    from appliance.ops.backup.archive import Backup, Manifest

UNPACKING = "restore.unpacking"
KEPT = "before-restore-%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True, slots=True)
class Restored:
    """Describes what was restored.

    `kept_state`, `kept_config`: where the earlier files are. None: there were none, or the configuration was the same.
    `lacks_fleet`: the store is of a host in a fleet, and neither the backup nor this host has the keys of that one.
    """

    manifest: Manifest
    settings: Settings
    config_written: bool
    kept_state: Path | None
    kept_config: Path | None
    lacks_fleet: bool


def restore_backup(file: Path, config_file: Path, environ: Mapping[str, str], *, as_new_node: bool = False) -> Restored:
    """Restores a backup's configuration to `config_file`, and its store and keys where that configuration says.

    The store has the backup's schema: the next start migrates it. Nothing is changed before all of the backup is
    unpacked and checked. `as_new_node`: the host is in no fleet, and not who it was in one.
    Raises BackupError if the backup cannot be restored, or not here, as this host is another one of a fleet. Raises
    ConfigError if this version refuses the configuration in it. Raises HostError while a server runs.
    """
    # Read as root: the state's owner may have no access to the program's files.
    newest = migrations()[-1][0]
    with open_backup(file) as backup, ExitStack() as stack:
        _check_schema(backup, backup.manifest.schema, newest)
        settings = _settings(backup, config_file, environ)
        state = StateDir(settings.node.state_dir)
        state.create()
        for each in _state_dirs(state, config_file, environ):
            with acting_as_owner(each.path):
                stack.enter_context(each.serving())
        with acting_as_owner(state.path):
            unpacked = stack.enter_context(_unpacked(backup, state, newest))
            of_fleet = _of_fleet(backup, state, unpacked, as_new_node=as_new_node)
        new_config = stack.enter_context(_config_aside(backup, config_file))
        stamp = datetime.now(UTC).strftime(KEPT)
        with acting_as_owner(state.path):
            kept_state = _switch(state, unpacked, of_fleet, stamp)
        kept_config = None if new_config is None else _replace(config_file, new_config, stamp)
        with acting_as_owner(state.path):
            state.unfinished_restore.unlink()
            sync_folder(state.path)
            lacks_fleet = fleet_restore.are_missing(state)
    return Restored(backup.manifest, settings, new_config is not None, kept_state, kept_config, lacks_fleet)


def _check_schema(backup: Backup, schema: int, newest: int) -> None:
    if schema > newest:
        raise backup.too_new(backup.manifest.appliance)


def _settings(backup: Backup, config_file: Path, environ: Mapping[str, str]) -> Settings:
    """Returns the settings that will apply; a backup without a configuration keeps the present one."""
    source, content = f"{backup.path}: config.toml", backup.config
    if content is None:
        source, content = str(config_file), config_file.read_bytes() if config_file.exists() else b""
    try:
        return parse_settings(content.decode(), environ, socket.gethostname(), source)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: not UTF-8 text") from error


def _state_dirs(restored: StateDir, config_file: Path, environ: Mapping[str, str]) -> Iterator[StateDir]:
    """Yields the state directories whose server must not run: the backup's configuration's, and the present one's."""
    yield restored
    try:
        present = StateDir(read_settings(config_file, environ).node.state_dir)
    except ConfigError:
        return  # no server runs with it
    if present.path != restored.path and present.path.is_dir():
        yield present


@contextmanager
def _unpacked(backup: Backup, state: StateDir, newest: int) -> Iterator[StateDir]:
    """Unpacks into a state directory next to the present files: complete, checked and on disk."""
    new = StateDir(state.path / UNPACKING)
    trees.remove(new.path)  # left by a killed restore
    try:
        new.create()
        with _new_file(new.key) as file:
            file.write(backup.key)
        with _new_file(new.store) as file:
            backup.copy_store(file)
        _check(backup, new, newest)
        _note_restored(new.store)
        yield new
    finally:
        with suppress(ProgramFailed):
            trees.remove(new.path)


def _of_fleet(backup: Backup, state: StateDir, new: StateDir, *, as_new_node: bool) -> dict[str, bytes] | None:
    """Unpacks the files of the fleet that are to be put in place. Returns all that are to be there, as None: those that
    are."""
    try:
        files = fleet_restore.to_restore(backup.fleet, state, new.store, as_new_node=as_new_node, source=backup.path)
    except ValueError as error:
        raise backup.damaged(str(error)) from error
    if as_new_node:
        with integrity.naming(new.store):
            fleet_traces.make_another_node(new.store)
    for name, content in (files or {}).items():
        (new.path / fleet_files.FOLDER).mkdir(mode=0o700, exist_ok=True)
        with _new_file(new.path / fleet_files.FOLDER / name) as file:
            file.write(content)
    return files


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Creates a file readable by its owner alone; it is on disk when the block ends."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _check(backup: Backup, new: StateDir, newest: int) -> None:
    try:
        new.read_key()
    except HostError as error:
        raise backup.damaged(f"{new.key.name} holds no key") from error
    found = integrity.flaw(new.store)
    if found is not None:
        raise backup.damaged(f"its store: {found}")
    _check_schema(backup, integrity.schema(new.store), newest)


def _note_restored(store: Path) -> None:
    """Has an exit of a fleet ask the hub first what the backup lacks, before it reports again."""
    with integrity.reading(store) as db:
        if not fleet_reports.is_reporting(db):
            return
    with integrity.writing(store) as db:
        fleet_reports.mark_restored(db)
        escrow.mark_restored(db)


@contextmanager
def _config_aside(backup: Backup, config_file: Path) -> Iterator[Path | None]:
    """Yields the backup's configuration, ready to replace the present one; None if they are the same."""
    present = config_file.read_bytes() if config_file.exists() else None
    if backup.config in (None, present):
        yield None
        return
    config_file.parent.mkdir(parents=True, exist_ok=True)
    aside = config_file.with_name(f".{config_file.name}.restoring")
    aside.unlink(missing_ok=True)  # left by a killed restore
    try:
        with _new_file(aside) as file:
            file.write(backup.config)
            _take_on_access(file.fileno(), config_file)
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def _take_on_access(descriptor: int, present: Path) -> None:
    """Copies mode and owner of the present configuration; a new one is readable for all users, as after `init`."""
    if not present.exists():
        os.fchmod(descriptor, 0o644)
        return
    found = present.stat()
    os.fchmod(descriptor, found.st_mode & 0o777)
    if os.geteuid() == 0:
        os.fchown(descriptor, found.st_uid, found.st_gid)


def _switch(state: StateDir, new: StateDir, of_fleet: dict[str, bytes] | None, stamp: str) -> Path | None:
    """Puts store and keys in place. Returns where the old ones are.

    The marker file keeps a server from starting on a mixed state meanwhile.
    """
    wal, shm, journal = sides = store_files.sides(state.store)
    old = [path for path in (state.store, wal, journal, state.key) if store_files.is_regular(path)]
    # Links, folders and the like, which cannot be replaced, or have no second name.
    others = [path for path in (state.store, *sides, state.key) if os.path.lexists(path) and path not in {*old, shm}]
    if os.path.lexists(shm) and not store_files.is_regular(shm):
        others.append(shm)
    ours = [] if of_fleet is None else fleet_restore.present(state)
    kept = state.path / stamp if old or others or ours else None
    if kept is not None:
        kept.mkdir(mode=0o700)
        for path in old:
            os.link(path, kept / path.name)
        fleet_restore.keep(ours, kept)
        sync_folder(kept)
    _mark_unfinished(state)
    if kept is not None:
        for path in others:
            path.rename(kept / path.name)
        sync_folder(kept)
    for path in sides:
        # Else SQLite would write the old store's last transactions into the new one.
        path.unlink(missing_ok=True)
    new.store.replace(state.store)
    new.key.replace(state.key)
    if of_fleet is not None:
        fleet_restore.put(new, state)
    sync_folder(state.path)
    return kept


def _mark_unfinished(state: StateDir) -> None:
    if not store_files.is_regular(state.unfinished_restore):
        trees.remove(state.unfinished_restore)
    state.unfinished_restore.touch(mode=0o600)
    sync_folder(state.path)


def _replace(config_file: Path, new: Path, stamp: str) -> Path | None:
    kept = config_file.with_name(f"{config_file.name}.{stamp}") if config_file.exists() else None
    if kept is not None:
        os.link(config_file, kept)
    new.replace(config_file)
    sync_folder(config_file.parent)
    return kept
