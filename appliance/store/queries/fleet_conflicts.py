"""Queries what a hub had changed that the generation which replaced it does not have: an operator does it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import aiosqlite

    from appliance.store.queries.fleet_changes import ChangedRow

KINDS = ("account", "token", "member")


@dataclass(frozen=True, slots=True)
class LackingChange:
    """Holds a row as the hub that was replaced had it, as JSON; None: it had removed it. `noted_at`: wall ms."""

    kind: str
    id: str
    row: str | None
    noted_at: int


async def note(db: aiosqlite.Connection, changed: Iterable[ChangedRow], now: int) -> None:
    """Keeps rows; one that is kept already is replaced."""
    await db.executemany(
        "INSERT OR REPLACE INTO fleet_conflicts (kind, id, row, noted_at) VALUES (?, ?, ?, ?)",
        [(each.kind, each.id, each.row, now) for each in changed if each.kind in KINDS],
    )


async def everything(db: aiosqlite.Connection) -> list[LackingChange]:
    """Returns what is kept, accounts before their tokens."""
    rows = await db.execute_fetchall("SELECT kind, id, row, noted_at FROM fleet_conflicts ORDER BY noted_at, kind, id")
    return [LackingChange(row["kind"], row["id"], row["row"], row["noted_at"]) for row in rows]


async def drop_same(db: aiosqlite.Connection, kind: str, rows: Mapping[str, str]) -> None:
    """Forgets those of a kind that the hub has as they were here. `rows`: the hub's, as JSON, by id."""
    kept = await db.execute_fetchall("SELECT id, row FROM fleet_conflicts WHERE kind = ?", (kind,))
    same = [(kind, each["id"]) for each in kept if rows.get(each["id"]) == each["row"]]
    await db.executemany("DELETE FROM fleet_conflicts WHERE kind = ? AND id = ?", same)


async def dismiss(db: aiosqlite.Connection) -> None:
    """Forgets all of them."""
    await db.execute("DELETE FROM fleet_conflicts")
