"""What a store tells without being opened for writing: is it whole, whose, of which version, when was the last beat."""

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
    """`newest`: the version that this program brings it up to. `beat` None: no server has ever ticked on it."""

    damage: str | None
    ours: bool = True
    version: int = 0
    newest: int = 0
    beat: Moment | None = None


def inspect(path: Path, newest: int) -> Inspection:
    """Blocking, about a second for each gigabyte."""
    try:
        integrity.check(path)
        with integrity.reading(path) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            (application,) = db.execute("PRAGMA application_id").fetchone()
            # A version that is not ours need not have this table.
            beat = _beat(db) if application == migration.APPLICATION_ID else None
    except StoreError as error:
        return Inspection(damage=str(error))
    except sqlite3.Error as error:
        return Inspection(damage=f"cannot read the store {path}: {error}; try again")
    # A store that was made and never opened is empty, and nobody's.
    ours = application == migration.APPLICATION_ID or (application, version) == (0, 0)
    return Inspection(None, ours, version, newest, beat)


def rehearse() -> None:
    """Import what `inspect` needs, before the program's files are out of reach."""
    with tempfile.NamedTemporaryFile() as empty:
        inspect(Path(empty.name), 0)


def _beat(db: sqlite3.Connection) -> Moment | None:
    try:
        row = db.execute("SELECT beat_wall_ms, beat_boot_ms, beat_boot_id FROM node").fetchone()
    except sqlite3.OperationalError:
        return None
    return Moment(*row) if row is not None and row[2] else None
