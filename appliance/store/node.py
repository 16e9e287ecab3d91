"""Queries: this exit's one row: drained or not, what was asked of the server, what live sessions were told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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


async def read(db: aiosqlite.Connection) -> NodeRow:
    rows = await db.execute_fetchall(
        "SELECT drained, requested, applied, interface, subnet, subnet6, public_key FROM node"
    )
    row = next(iter(rows))
    return NodeRow(bool(row["drained"]), *tuple(row)[1:])


async def request(db: aiosqlite.Connection) -> int:
    """Say that the server has something to act on; returns the number `applied` will reach when it has."""
    rows = await db.execute_fetchall("UPDATE node SET requested = requested + 1 RETURNING requested")
    return int(next(iter(rows))[0])


async def mark_applied(db: aiosqlite.Connection, requested: int) -> None:
    await db.execute("UPDATE node SET applied = max(applied, ?)", (requested,))


async def set_drained(db: aiosqlite.Connection, *, drained: bool) -> None:
    await db.execute("UPDATE node SET drained = ?", (drained,))


async def set_identity(db: aiosqlite.Connection, interface: str, subnet: str, subnet6: str, public_key: bytes) -> None:
    await db.execute(
        "UPDATE node SET interface = ?, subnet = ?, subnet6 = ?, public_key = ?",
        (interface, subnet, subnet6, public_key),
    )
