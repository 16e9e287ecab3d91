"""Inspects a store without writing to it: integrity, application, schema version, what an operator is told of."""

from __future__ import annotations

import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path

from appliance.domain.clock import Moment
from appliance.domain.errors import StoreError
from appliance.store import integrity, migration

BEAT = "SELECT beat_wall_ms, beat_boot_ms, beat_boot_id FROM node"
ACCEPTED = "SELECT right_wall_ms, right_boot_ms, right_boot_id FROM node"
DEVICES = "SELECT count(*) FROM devices WHERE removed_at IS NULL"
CONFLICTS = "SELECT count(*) FROM fleet_conflicts"


@dataclass(frozen=True, slots=True)
class Inspection:
    """Describes a store. `newest`: the version this program migrates it to. `heartbeat`: None before the first.

    `known`: the last moment whose wall time is believed. `conflicts`: changes of accounts that the fleet took back.
    """

    damage: str | None
    ours: bool = True
    version: int = 0
    newest: int = 0
    heartbeat: Moment | None = None
    drained: bool = False
    known: Moment | None = None
    devices: int = 0
    conflicts: int = 0


def inspect(path: Path, newest: int) -> Inspection:
    """Inspects the store at `path`. Blocks, about a second for each gigabyte."""
    try:
        integrity.check(path)
        with integrity.reading(path) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            (application,) = db.execute("PRAGMA application_id").fetchone()
            # A database of another program need not have this table.
            own = application == migration.APPLICATION_ID
            heartbeat, drained = _node(db) if own else (None, False)
            accepted = _moment(db, ACCEPTED) if own else None
            devices = _count(db, DEVICES) if own else 0
            conflicts = _count(db, CONFLICTS) if own else 0
    except StoreError as error:
        return Inspection(damage=str(error))
    # A store that was created and never opened is empty, with both numbers 0.
    ours = application == migration.APPLICATION_ID or (application, version) == (0, 0)
    return Inspection(None, ours, version, newest, heartbeat, drained, accepted or heartbeat, devices, conflicts)


def rehearse() -> None:
    """Imports what `inspect` needs, before the program's files are out of reach."""
    with tempfile.NamedTemporaryFile() as empty:
        inspect(Path(empty.name), 0)


def _node(db: sqlite3.Connection) -> tuple[Moment | None, bool]:
    """Returns the last heartbeat, and whether the exit takes no new sessions."""
    try:
        row = db.execute("SELECT drained FROM node").fetchone()
    except sqlite3.OperationalError:
        return None, False
    return _moment(db, BEAT), row is not None and bool(row[0])


def _count(db: sqlite3.Connection, query: str) -> int:
    try:
        (count,) = db.execute(query).fetchone()
    except sqlite3.OperationalError:
        return 0  # the store is of an older version
    return int(count)


def _moment(db: sqlite3.Connection, query: str) -> Moment | None:
    try:
        row = db.execute(query).fetchone()
    except sqlite3.OperationalError:
        return None  # the store is of an older version
    return Moment(*row) if row is not None and row[2] else None
