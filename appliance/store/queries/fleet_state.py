"""Queries the single row that a host has while it is in a fleet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain.clock import Moment

if TYPE_CHECKING:
    import aiosqlite

    from appliance.domain.fleet_member import Role


@dataclass(frozen=True, slots=True)
class FleetRow:
    """Holds what this host is in its fleet, and how far a spoke has followed the hub.

    `acc_rev`, `acc_mark`: of the last change followed; 0 and "": of none. `heard`: when it last heard that it has all
    changes; None: never.
    """

    role: Role
    node_id: str
    gen: int
    acc_rev: int
    acc_mark: str
    heard: Moment | None


async def read(db: aiosqlite.Connection) -> FleetRow | None:
    """Returns the row; None: this host is in no fleet."""
    found = await db.execute_fetchall(
        "SELECT role, node_id, gen, acc_rev, acc_mark, heard_wall_ms, heard_boot_ms, heard_boot_id FROM fleet"
    )
    row = next(iter(found), None)
    if row is None:
        return None
    heard = None
    if row["heard_boot_id"] is not None:
        heard = Moment(row["heard_wall_ms"], row["heard_boot_ms"], row["heard_boot_id"])
    return FleetRow(row["role"], row["node_id"], row["gen"], row["acc_rev"], row["acc_mark"], heard)


async def enter(db: aiosqlite.Connection, role: Role, node_id: str, gen: int) -> None:
    """Notes that this host is in a fleet now, and has followed nothing yet."""
    await db.execute(
        "INSERT OR REPLACE INTO fleet (only_row, role, node_id, gen) VALUES (1, ?, ?, ?)", (role, node_id, gen)
    )


async def leave(db: aiosqlite.Connection) -> None:
    """Erases all that a host has of its fleet: its accounts and tokens stay, and are its own."""
    for table in ("fleet", "fleet_changes", "fleet_members", "fleet_invites", "fleet_terms"):
        await db.execute(f"DELETE FROM {table}")  # noqa: S608 (constants)


async def follow_to(db: aiosqlite.Connection, gen: int, rev: int, mark: str) -> None:
    """Notes up to which change of the hub's this host has followed. To be written with what the changes say."""
    await db.execute("UPDATE fleet SET gen = ?, acc_rev = ?, acc_mark = ?", (gen, rev, mark))


async def put_heard(db: aiosqlite.Connection, heard: Moment) -> None:
    await db.execute(
        "UPDATE fleet SET heard_wall_ms = ?, heard_boot_ms = ?, heard_boot_id = ?",
        (heard.wall_ms, heard.boot_ms, heard.boot_id),
    )


async def kept_on(db: aiosqlite.Connection) -> str | None:
    """Returns the name of the host on which accounts are kept, where that is another one; None: this one."""
    found = await db.execute_fetchall(
        """
        SELECT (SELECT name FROM fleet_members WHERE role = 'hub' AND left_at IS NULL ORDER BY joined_at, id LIMIT 1)
        FROM fleet WHERE role = 'spoke'
        """
    )
    row = next(iter(found), None)
    return None if row is None else str(row[0] or "the hub")
