"""Queries the exit's single row: drained flag, requests to the server, and the identity live sessions were given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain import clock_steps
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
    accepted: Moment | None  # one whose wall time an admin has said to be right; the server is yet to take it over

    def known(self, now: Moment) -> Moment | None:
        """Returns the last moment whose wall time is believed; None before the first heartbeat.

        `now`: as the host's clocks stand. An acceptance of another setting of the wall clock has had its time.
        """
        if self.accepted is not None and clock_steps.contradiction_ms(self.accepted, now) == 0:
            return self.accepted
        return self.heartbeat if self.heartbeat.boot_id else None


async def read(db: aiosqlite.Connection) -> NodeRow:
    rows = await db.execute_fetchall(
        """
        SELECT drained, requested, applied, interface, subnet, subnet6, public_key,
            beat_wall_ms, beat_boot_ms, beat_boot_id, right_wall_ms, right_boot_ms, right_boot_id
        FROM node
        """
    )
    row = next(iter(rows))
    accepted = None
    if row["right_boot_id"] is not None:
        accepted = Moment(row["right_wall_ms"], row["right_boot_ms"], row["right_boot_id"])
    return NodeRow(
        drained=bool(row["drained"]),
        requested=row["requested"],
        applied=row["applied"],
        interface=row["interface"],
        subnet=row["subnet"],
        subnet6=row["subnet6"],
        public_key=row["public_key"],
        heartbeat=Moment(row["beat_wall_ms"], row["beat_boot_ms"], row["beat_boot_id"]),
        accepted=accepted,
    )


async def request(db: aiosqlite.Connection) -> int:
    """Requests that the server act; returns the number that `applied` reaches once it has."""
    rows = await db.execute_fetchall("UPDATE node SET requested = requested + 1 RETURNING requested")
    return int(next(iter(rows))[0])


async def mark_applied(db: aiosqlite.Connection, requested: int) -> None:
    """Notes that the server has acted on all requests up to this one."""
    await db.execute("UPDATE node SET applied = max(applied, ?)", (requested,))
    # An acceptance is of one step of the clock: it must not be taken for one of a later step.
    await db.execute(
        "UPDATE node SET right_wall_ms = NULL, right_boot_ms = NULL, right_boot_id = NULL WHERE requested = ?",
        (requested,),
    )


async def write_heartbeat(db: aiosqlite.Connection, now: Moment) -> None:
    await db.execute(
        "UPDATE node SET beat_wall_ms = ?, beat_boot_ms = ?, beat_boot_id = ?", (now.wall_ms, now.boot_ms, now.boot_id)
    )


async def accept_clock(db: aiosqlite.Connection, right: Moment) -> None:
    """Stores a moment whose wall time is right. To be followed by a request."""
    await db.execute(
        "UPDATE node SET right_wall_ms = ?, right_boot_ms = ?, right_boot_id = ?",
        (right.wall_ms, right.boot_ms, right.boot_id),
    )


async def set_drained(db: aiosqlite.Connection, *, drained: bool) -> None:
    await db.execute("UPDATE node SET drained = ?", (drained,))


async def set_identity(db: aiosqlite.Connection, interface: str, subnet: str, subnet6: str, public_key: bytes) -> None:
    await db.execute(
        "UPDATE node SET interface = ?, subnet = ?, subnet6 = ?, public_key = ?",
        (interface, subnet, subnet6, public_key),
    )
