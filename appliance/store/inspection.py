"""Inspects a store without writing to it: integrity, application, schema version, last heartbeat, drain."""

from __future__ import annotations

import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path

from appliance.domain.clock import Moment
from appliance.domain.errors import StoreError
from appliance.store import integrity, migration


@dataclass(frozen=True, slots=True)
class Inspection:
    """Describes a store. `newest`: the version this program migrates it to. `heartbeat`: None before the first."""

    damage: str | None
    ours: bool = True
    version: int = 0
    newest: int = 0
    heartbeat: Moment | None = None
    drained: bool = False


def inspect(path: Path, newest: int) -> Inspection:
    """Inspects the store at `path`. Blocks, about a second for each gigabyte."""
    try:
        integrity.check(path)
        with integrity.reading(path) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            (application,) = db.execute("PRAGMA application_id").fetchone()
            # A database of another program need not have this table.
            heartbeat, drained = _node(db) if application == migration.APPLICATION_ID else (None, False)
    except StoreError as error:
        return Inspection(damage=str(error))
    except sqlite3.Error as error:
        return Inspection(damage=f"cannot read the store {path}: {error}; try again")
    # A store that was created and never opened is empty, with both numbers 0.
    ours = application == migration.APPLICATION_ID or (application, version) == (0, 0)
    return Inspection(None, ours, version, newest, heartbeat, drained)


def rehearse() -> None:
    """Imports what `inspect` needs, before the program's files are out of reach."""
    with tempfile.NamedTemporaryFile() as empty:
        inspect(Path(empty.name), 0)


def _node(db: sqlite3.Connection) -> tuple[Moment | None, bool]:
    """Returns the last heartbeat, and whether the exit takes no new sessions."""
    try:
        row = db.execute("SELECT drained, beat_wall_ms, beat_boot_ms, beat_boot_id FROM node").fetchone()
    except sqlite3.OperationalError:
        return None, False
    if row is None:
        return None, False
    drained, *beat = row
    return Moment(*beat) if beat[2] else None, bool(drained)
