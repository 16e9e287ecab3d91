"""Queries what a hub had changed that the generation which replaced it does not have: an operator does it again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import aiosqlite

    from appliance.store.queries.fleet_changes import ChangedRow

KINDS = ("account", "token", "member")
OVER = ("deleted_at", "revoked_at", "left_at")
BY_GENERATION = ("role", "standby", "dialled")


@dataclass(frozen=True, slots=True)
class LackingChange:
    """Holds a row as the hub that was replaced had it, as JSON; None: it had removed it. `noted_at`: wall ms."""

    kind: str
    id: str
    row: str | None
    noted_at: int


async def note(db: aiosqlite.Connection, changed: Iterable[ChangedRow], now: int) -> None:
    """Keeps rows; one that is kept already is replaced."""
    await _note(db, "INSERT OR REPLACE", changed, now)


async def note_more(db: aiosqlite.Connection, rows: Iterable[ChangedRow], now: int) -> None:
    """Keeps rows, but for those that are kept already."""
    await _note(db, "INSERT OR IGNORE", rows, now)


async def _note(db: aiosqlite.Connection, how: str, rows: Iterable[ChangedRow], now: int) -> None:
    await db.executemany(
        f"{how} INTO fleet_conflicts (kind, id, row, noted_at) VALUES (?, ?, ?, ?)",
        [(each.kind, each.id, each.row, now) for each in rows if each.kind in KINDS],
    )


async def everything(db: aiosqlite.Connection) -> list[LackingChange]:
    """Returns what is kept, accounts before their tokens."""
    rows = await db.execute_fetchall("SELECT kind, id, row, noted_at FROM fleet_conflicts ORDER BY noted_at, kind, id")
    return [LackingChange(row["kind"], row["id"], row["row"], row["noted_at"]) for row in rows]


async def drop_same(db: aiosqlite.Connection, kind: str, rows: Mapping[str, str]) -> None:
    """Forgets those of a kind that the hub has as they were here. `rows`: the hub's, as JSON, by id."""
    kept = await db.execute_fetchall("SELECT id, row FROM fleet_conflicts WHERE kind = ?", (kind,))
    same = [(kind, each["id"]) for each in kept if _is_same(each["row"], rows.get(each["id"]))]
    await db.executemany("DELETE FROM fleet_conflicts WHERE kind = ? AND id = ?", same)


def _is_same(kept: str | None, hubs: str | None) -> bool:
    """Tells whether the hub lacks nothing of it. What is over here, and not there, it does not lack."""
    if kept is None or hubs is None:
        return hubs is None and (kept is None or any(json.loads(kept).get(over) is not None for over in OVER))
    return kept == hubs or _operators(kept) == _operators(hubs)


def _operators(row: str) -> dict[str, object]:
    """Returns what an operator decides of a row: which host is the hub follows from the generation."""
    return {key: value for key, value in json.loads(row).items() if key not in BY_GENERATION}


async def dismiss(db: aiosqlite.Connection) -> None:
    """Forgets all of them."""
    await db.execute("DELETE FROM fleet_conflicts")
