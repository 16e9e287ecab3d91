"""Reads who a host is in a fleet, for a backup: the files of state_dir/fleet that fleet.identity writes.

They go with the store. What nats-server keeps is not saved: it never has the only copy.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from appliance.config import state_file
from appliance.domain.errors import HostError
from appliance.store.queries import fleet_traces

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from appliance.store.state_dir import StateDir

FOLDER = "fleet"
KEYS, MEMBERSHIP, HUB = "keys.json", "membership.json", "hub.json"
FILES = (KEYS, HUB, MEMBERSHIP)  # the last one makes the host a member: whoever finds it finds the others
LEAVE = "wg-appliance fleet leave"


class _Membership(msgspec.Struct):
    fleet_id: str
    name: str
    role: str


class _Keys(msgspec.Struct):
    node_id: str


@dataclass(frozen=True, slots=True)
class FleetHost:
    """Tells who a host is in which fleet. `name`: of the host, when it joined."""

    fleet_id: str
    node_id: str
    role: str
    name: str

    def is_same(self, other: FleetHost) -> bool:
        return (self.fleet_id, self.node_id, self.role) == (other.fleet_id, other.node_id, other.role)


def of_host(state: StateDir) -> dict[str, bytes]:
    """Returns what the files hold that are there, by name. Raises HostError for one that cannot be read."""
    found = {}
    for name in FILES:
        file = state.path / FOLDER / name
        try:
            found[name] = state_file.read_text(file).encode()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HostError(f"cannot read {file}: {os.strerror(error.errno or 0)}") from error
        except UnicodeDecodeError as error:
            raise HostError(f"{file} is damaged: it is no text") from error
    return found


def member(files: Mapping[str, bytes]) -> FleetHost | None:
    """Returns who these files say that a host is; None: it is in no fleet. Raises ValueError for what is damaged."""
    if MEMBERSHIP not in files:
        return None
    try:
        of_fleet = msgspec.json.decode(files[MEMBERSHIP], type=_Membership)
        keys = msgspec.json.decode(files.get(KEYS, b""), type=_Keys)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{FOLDER}/{MEMBERSHIP} or {FOLDER}/{KEYS}: {error}") from error
    return FleetHost(of_fleet.fleet_id, keys.node_id, of_fleet.role, of_fleet.name)


def to_save(state: StateDir, store: sqlite3.Connection) -> dict[str, bytes]:
    """Returns what goes with this snapshot of the store. Raises HostError: a command joins or leaves a fleet just now,
    or a file is damaged."""
    files = of_host(state)
    try:
        found = member(files)
    except ValueError as error:
        raise HostError(f"{state.path}: {error}: it is damaged; put it back from a backup, or {LEAVE}") from error
    if found is not None and fleet_traces.node_of(store) != found.node_id:
        raise HostError("a command takes this host into a fleet or out of it just now: try again when it is done")
    return files
