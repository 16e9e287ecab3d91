"""Queries the hosts of the fleet: the hub's own on the hub, a replica on the others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from appliance.domain.fleet_member import FleetMember, is_cluster

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

    import aiosqlite

_SELECT = "SELECT id, name, region, role, nkey, xkey, joined_at, left_at, dialled, hub_since FROM fleet_members"


def _member(row: sqlite3.Row) -> FleetMember:
    return FleetMember(**dict(row))


async def everyone(db: aiosqlite.Connection) -> list[FleetMember]:
    """Returns all hosts, those that have left too, in the order of joining."""
    return [_member(row) for row in await db.execute_fetchall(f"{_SELECT} ORDER BY joined_at, id")]


async def present(db: aiosqlite.Connection) -> list[FleetMember]:
    """Returns the hosts that are in the fleet, in the order of joining."""
    rows = await db.execute_fetchall(f"{_SELECT} WHERE left_at IS NULL ORDER BY joined_at, id")
    return [_member(row) for row in rows]


async def by_id(db: aiosqlite.Connection, node_id: str) -> FleetMember | None:
    rows = await db.execute_fetchall(f"{_SELECT} WHERE id = ?", (node_id,))
    return next(map(_member, rows), None)


async def by_name(db: aiosqlite.Connection, name: str) -> FleetMember | None:
    """Returns the host in the fleet by this name."""
    rows = await db.execute_fetchall(f"{_SELECT} WHERE name = ? AND left_at IS NULL", (name,))
    return next(map(_member, rows), None)


async def put(db: aiosqlite.Connection, member: FleetMember) -> None:
    """Stores a host, or what is different about it.

    Raises sqlite3.IntegrityError if another host in the fleet has its name or key.
    """
    await db.execute(
        """
        INSERT INTO fleet_members (id, name, region, role, nkey, xkey, joined_at, left_at, dialled, hub_since)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, region = excluded.region, role = excluded.role,
            nkey = excluded.nkey, xkey = excluded.xkey, joined_at = excluded.joined_at, left_at = excluded.left_at,
            dialled = excluded.dialled, hub_since = excluded.hub_since
        """,
        (
            *(member.id, member.name, member.region, member.role),
            *(member.nkey, member.xkey, member.joined_at, member.left_at, member.dialled, member.hub_since),
        ),
    )


async def mark_left(db: aiosqlite.Connection, node_id: str, now: int) -> None:
    """Notes that the host is no longer in the fleet; its row stays for what it has reported.

    If it was one of several hubs, the others are other hubs than before.
    """
    before = await hubs(db)
    await db.execute("UPDATE fleet_members SET left_at = ? WHERE id = ? AND left_at IS NULL", (now, node_id))
    if is_cluster(before) and node_id in {each.id for each in before}:
        await _are_hubs_since(db, now)


async def set_hubs(db: aiosqlite.Connection, node_id: str, standbys: Collection[str], now: int) -> None:
    """Makes these the standbys of a host, the hub, from now on, and those that were standbys before spokes."""
    names = json.dumps(list(standbys))
    await db.execute(
        """
        UPDATE fleet_members SET role = 'spoke', dialled = '' WHERE role <> 'spoke' AND id <> ? AND left_at IS NULL
            AND id NOT IN (SELECT value FROM json_each(?))
        """,
        (node_id, names),
    )
    await db.execute(
        """
        UPDATE fleet_members SET role = 'standby'
        WHERE id <> ? AND left_at IS NULL AND id IN (SELECT value FROM json_each(?))
        """,
        (node_id, names),
    )
    await _are_hubs_since(db, now)


async def hubs(db: aiosqlite.Connection) -> list[FleetMember]:
    """Returns the hub and its standbys, in the order of joining."""
    return [each for each in await present(db) if each.role != "spoke"]


async def _are_hubs_since(db: aiosqlite.Connection, now: int) -> None:
    """Never goes back: where the clock did, it goes on from what was."""
    await db.execute(
        """
        UPDATE fleet_members SET hub_since = max(?, (SELECT max(hub_since) + 1 FROM fleet_members))
        WHERE role <> 'spoke' AND left_at IS NULL
        """,
        (now,),
    )


async def lead(db: aiosqlite.Connection, node_id: str) -> None:
    """Makes a host the hub, and the one that was it a standby."""
    await db.execute("UPDATE fleet_members SET role = 'standby' WHERE role = 'hub' AND left_at IS NULL")
    await db.execute("UPDATE fleet_members SET role = 'hub' WHERE id = ?", (node_id,))


async def follow(db: aiosqlite.Connection, node_id: str) -> None:
    """Makes a host, the hub, a standby, and its standby the hub, until that one has told who is what.

    Of several standbys it is not known which one leads now: none is the hub until then.
    """
    await db.execute(
        """
        UPDATE fleet_members SET role = 'hub' WHERE role = 'standby' AND left_at IS NULL
            AND (SELECT count(*) FROM fleet_members WHERE role = 'standby' AND left_at IS NULL) = 1
        """
    )
    await db.execute("UPDATE fleet_members SET role = 'standby' WHERE id = ?", (node_id,))


async def put_dialled(db: aiosqlite.Connection, node_id: str, dialled: str) -> None:
    """Notes where a host, a hub or standby, is dialled; "": that is as it was."""
    await db.execute(
        "UPDATE fleet_members SET dialled = ? WHERE id = ? AND dialled <> ? AND role <> 'spoke' AND ? <> ''",
        (dialled, node_id, dialled, dialled),
    )
