"""Queries the exit's single row: drained flag, requests to the server, and the identity live sessions were given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain.clock import Moment

if TYPE_CHECKING:
    import aiosqlite


@dataclass(frozen=True, slots=True)
class NodeRow:
    drained: bool
    requested: int
    applied: int
    interface: str | None
    subnet: str | None
    subnet6: str | None
    public_key: bytes | None
    heartbeat: Moment  # the last moment at which the server is known to have been up; boot id "" before the first


async def read(db: aiosqlite.Connection) -> NodeRow:
    rows = await db.execute_fetchall(
        """
        SELECT drained, requested, applied, interface, subnet, subnet6, public_key,
            beat_wall_ms, beat_boot_ms, beat_boot_id
        FROM node
        """
    )
    row = next(iter(rows))
    return NodeRow(
        drained=bool(row["drained"]),
        requested=row["requested"],
        applied=row["applied"],
        interface=row["interface"],
        subnet=row["subnet"],
        subnet6=row["subnet6"],
        public_key=row["public_key"],
        heartbeat=Moment(row["beat_wall_ms"], row["beat_boot_ms"], row["beat_boot_id"]),
    )


async def request(db: aiosqlite.Connection) -> int:
    """Requests that the server act; returns the number that `applied` reaches once it has."""
    rows = await db.execute_fetchall("UPDATE node SET requested = requested + 1 RETURNING requested")
    return int(next(iter(rows))[0])


async def mark_applied(db: aiosqlite.Connection, requested: int) -> None:
    await db.execute("UPDATE node SET applied = max(applied, ?)", (requested,))


async def write_heartbeat(db: aiosqlite.Connection, now: Moment) -> None:
    await db.execute(
        "UPDATE node SET beat_wall_ms = ?, beat_boot_ms = ?, beat_boot_id = ?", (now.wall_ms, now.boot_ms, now.boot_id)
    )


async def set_drained(db: aiosqlite.Connection, *, drained: bool) -> None:
    await db.execute("UPDATE node SET drained = ?", (drained,))


async def set_identity(db: aiosqlite.Connection, interface: str, subnet: str, subnet6: str, public_key: bytes) -> None:
    await db.execute(
        "UPDATE node SET interface = ?, subnet = ?, subnet6 = ?, public_key = ?",
        (interface, subnet, subnet6, public_key),
    )
