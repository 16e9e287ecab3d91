"""Queries the single row that a host has while it is in a fleet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain.clock import Moment
from appliance.domain.fleet_member import is_cluster
from appliance.store.queries import fleet_changes, fleet_members
from appliance.store.queries.fleet_changes import Head

if TYPE_CHECKING:
    import aiosqlite

    from appliance.domain.fleet_member import Role

NOTHING_KEPT = 0, Head(0, "")


@dataclass(frozen=True, slots=True)
class FleetRow:
    """Holds what this host is in its fleet, and how far a spoke has followed the hub.

    `acc_rev`, `acc_mark`: of the last change followed; 0 and "": of none. `heard`: when it last heard that it has all
    changes; None: never. `base`: on a hub, the last change of the generation before that this one has.
    `kept`: on a hub, the last change that a second hub is known to have, after its generation. On a standby that was
    one, and has followed nothing since: it holds all that was acknowledged up to this.
    """

    role: Role
    node_id: str
    gen: int
    acc_rev: int
    acc_mark: str
    heard: Moment | None
    base: Head = Head(0, "")  # noqa: RUF009 (frozen)
    kept: tuple[int, Head] = NOTHING_KEPT


async def read(db: aiosqlite.Connection) -> FleetRow | None:
    """Returns the row; None: this host is in no fleet."""
    found = await db.execute_fetchall(
        "SELECT role, node_id, gen, acc_rev, acc_mark, heard_wall_ms, heard_boot_ms, heard_boot_id,"
        " base_rev, base_mark, kept_gen, kept_rev, kept_mark FROM fleet"
    )
    row = next(iter(found), None)
    if row is None:
        return None
    heard = None
    if row["heard_boot_id"] is not None:
        heard = Moment(row["heard_wall_ms"], row["heard_boot_ms"], row["heard_boot_id"])
    base = Head(row["base_rev"], row["base_mark"])
    kept = row["kept_gen"], Head(row["kept_rev"], row["kept_mark"])
    return FleetRow(row["role"], row["node_id"], row["gen"], row["acc_rev"], row["acc_mark"], heard, base, kept)


async def enter(db: aiosqlite.Connection, role: Role, node_id: str, gen: int) -> None:
    """Notes that this host is in a fleet now, and has followed nothing yet."""
    await db.execute(
        "INSERT OR REPLACE INTO fleet (only_row, role, node_id, gen) VALUES (1, ?, ?, ?)", (role, node_id, gen)
    )


async def leave(db: aiosqlite.Connection) -> None:
    """Erases all that a host has of its fleet: its accounts and tokens stay, and are its own."""
    tables = "fleet", "fleet_changes", "fleet_members", "fleet_invites", "fleet_terms", "fleet_conflicts"
    present = {row[0] for row in await db.execute_fetchall("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    for table in tables:
        if table in present:  # a store that was restored has an older schema
            await db.execute(f"DELETE FROM {table}")  # noqa: S608 (constants)


async def follow_to(db: aiosqlite.Connection, gen: int, rev: int, mark: str) -> None:
    """Notes up to which change of the hub's this host has followed. To be written with what the changes say."""
    await db.execute("UPDATE fleet SET gen = ?, acc_rev = ?, acc_mark = ?", (gen, rev, mark))


async def lead(db: aiosqlite.Connection, gen: int) -> None:
    """Begins a generation, of which this host is the hub: it has what it has followed of the one before."""
    await db.execute(
        """
        UPDATE fleet SET role = 'hub', gen = ?,
            base_rev = acc_rev, base_mark = acc_mark, acc_rev = 0, acc_mark = ''
        """,
        (gen,),
    )


async def lead_on(db: aiosqlite.Connection, gen: int, base: Head) -> None:
    """Begins a generation, of which this host is the hub, as it was of the one before. `base`: its last change."""
    await db.execute("UPDATE fleet SET gen = ?, base_rev = ?, base_mark = ?", (gen, base.rev, base.mark))


async def stand_by(db: aiosqlite.Connection, gen: int, held: tuple[int, Head] = NOTHING_KEPT) -> None:
    """Notes that another host is the hub of that generation, and that nothing of it is followed yet.

    The generation is noted at once: the next one begins after it, even if this host has not followed it by then.
    `held`: see FleetRow.kept.
    """
    of, change = held
    await db.execute(
        """
        UPDATE fleet SET role = 'standby', gen = ?, acc_rev = 0, acc_mark = '', base_rev = 0, base_mark = '',
            kept_gen = ?, kept_rev = ?, kept_mark = ?
        """,
        (gen, of, change.rev, change.mark),
    )


async def be_spoke(db: aiosqlite.Connection) -> None:
    """Notes that this host is none of the hubs any more."""
    await db.execute("UPDATE fleet SET role = 'spoke'")
    await db.execute("UPDATE fleet_members SET role = 'spoke' WHERE id = (SELECT node_id FROM fleet)")


async def follow_role(db: aiosqlite.Connection) -> None:
    """Makes this host what its row among the members says that it is: a spoke, or a standby.

    It is the hub by what it has done itself alone.
    """
    await db.execute(
        """
        UPDATE fleet SET role = (SELECT role FROM fleet_members WHERE id = node_id)
        WHERE role <> 'hub' AND EXISTS (
            SELECT 1 FROM fleet_members
            WHERE id = node_id AND left_at IS NULL AND fleet_members.role IN ('standby', 'spoke')
                AND fleet_members.role <> fleet.role
        )
        """
    )


async def put_heard(db: aiosqlite.Connection, heard: Moment) -> None:
    await db.execute(
        "UPDATE fleet SET heard_wall_ms = ?, heard_boot_ms = ?, heard_boot_id = ?",
        (heard.wall_ms, heard.boot_ms, heard.boot_id),
    )


async def put_kept(db: aiosqlite.Connection, gen: int, rev: int, mark: str) -> None:
    """Notes the last change of this hub's, in that generation, that a second hub is known to have."""
    await db.execute("UPDATE fleet SET kept_gen = ?, kept_rev = ?, kept_mark = ?", (gen, rev, mark))


async def to_be_kept(db: aiosqlite.Connection) -> tuple[int, Head] | None:
    """Returns the generation and the newest change, on one of several hubs: a second one is to have it; else None."""
    found = await db.execute_fetchall("SELECT gen FROM fleet WHERE role = 'hub'")
    row = next(iter(found), None)
    if row is None or not is_cluster(await fleet_members.hubs(db)):
        return None
    return row["gen"], await fleet_changes.head(db)


async def is_kept(db: aiosqlite.Connection, gen: int, change: Head) -> bool:
    """Tells whether a second hub is known to have this change of this hub's, made in that generation.

    Where it leads another generation since, the change must be among what it has recorded still: of one that has
    followed another hub meanwhile it is not, and numbers of then say nothing.
    """
    rows = await db.execute_fetchall("SELECT kept_gen FROM fleet WHERE kept_rev >= ?", (change.rev,))
    row = next(iter(rows), None)
    if row is None or row["kept_gen"] < gen:
        return False
    return row["kept_gen"] == gen or await fleet_changes.known(db, change)


async def kept_on(db: aiosqlite.Connection) -> str | None:
    """Returns the name of the host on which accounts are kept, where that is another one; None: this one."""
    found = await db.execute_fetchall(
        """
        SELECT (SELECT name FROM fleet_members WHERE role = 'hub' AND left_at IS NULL ORDER BY joined_at, id LIMIT 1)
        FROM fleet WHERE role <> 'hub'
        """
    )
    row = next(iter(found), None)
    return None if row is None else str(row[0] or "the hub")
