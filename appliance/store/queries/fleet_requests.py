"""Queries what exits of a fleet have asked of each other: operations that were served, and those still to be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import aiosqlite

_FORGET = """
DELETE FROM fleet_ops WHERE (sender, op) IN (
    SELECT sender, op FROM fleet_ops o WHERE at < :before
        AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.id = o.made_id AND s.state <> 'terminated')
    ORDER BY at LIMIT :most)
"""
_TAKE_BACK = """
INSERT INTO fleet_ops (sender, op, made_id, replaced_id, answer, at) VALUES (?, ?, NULL, NULL, NULL, ?)
ON CONFLICT (sender, op) DO UPDATE SET answer = NULL
"""


_INTEND = """
INSERT OR IGNORE INTO fleet_intents (node_id, operation, request, at)
SELECT ?, ?, ?, ? WHERE (SELECT count(*) FROM fleet_intents) < ?
"""
MOST_INTENTS = 100_000
REFUSED = "refused"  # in place of the operation: what is asked is then why, and is asked no more


class ServedOp(NamedTuple):
    """Holds what was made for an operation. `answer` None: it was taken back."""

    made_id: str | None
    replaced_id: str | None
    answer: bytes | None


class Intent(NamedTuple):
    """Holds what is still to be asked of another exit. `number`: in their order, from 1."""

    number: int
    node_id: str
    operation: str
    request: bytes
    at: int


async def served(db: aiosqlite.Connection, sender: str, op: str) -> ServedOp | None:
    sql = "SELECT made_id, replaced_id, answer FROM fleet_ops WHERE sender = ? AND op = ?"
    return next((ServedOp(*row) for row in await db.execute_fetchall(sql, (sender, op))), None)


async def serve(db: aiosqlite.Connection, sender: str, op: str, made: ServedOp, at: int) -> None:
    """Notes what was made for an operation, and its answer."""
    await db.execute(
        "INSERT INTO fleet_ops (sender, op, made_id, replaced_id, answer, at) VALUES (?, ?, ?, ?, ?, ?)",
        (sender, op, *made, at),
    )


async def take_back(db: aiosqlite.Connection, sender: str, op: str, at: int) -> None:
    """Notes that an operation is taken back: it is refused if it comes after this."""
    await db.execute(_TAKE_BACK, (sender, op, at))


async def forget(db: aiosqlite.Connection, before: int, most: int) -> int:
    """Deletes up to `most` operations from before then of which nothing is live; returns how many."""
    return (await db.execute(_FORGET, {"before": before, "most": most})).rowcount


async def intend(db: aiosqlite.Connection, node_id: str, operation: str, request: bytes, at: int) -> int | None:
    """Notes what is to be asked of an exit, once, and returns its number; None: it is beyond the most that is kept."""
    await db.execute(_INTEND, (node_id, operation, request, at, MOST_INTENTS))
    sql = "SELECT number FROM fleet_intents WHERE node_id = ? AND operation = ? AND request = ?"
    return next((row[0] for row in await db.execute_fetchall(sql, (node_id, operation, request))), None)


async def intents(db: aiosqlite.Connection, node_id: str, most: int) -> list[Intent]:
    """Returns what is to be asked of an exit, the oldest first."""
    sql = "SELECT * FROM fleet_intents WHERE node_id = ? AND operation <> ? ORDER BY number LIMIT ?"
    return [Intent(*row) for row in await db.execute_fetchall(sql, (node_id, REFUSED, most))]


async def intended_nodes(db: aiosqlite.Connection) -> list[str]:
    """Returns the exits of which something is still to be asked."""
    sql = "SELECT DISTINCT node_id FROM fleet_intents WHERE operation <> ?"
    return [row[0] for row in await db.execute_fetchall(sql, (REFUSED,))]


async def done(db: aiosqlite.Connection, number: int) -> None:
    """Deletes an intent that was answered."""
    await db.execute("DELETE FROM fleet_intents WHERE number = ?", (number,))


async def give_up_before(db: aiosqlite.Connection, at: int) -> int:
    """Deletes intents from before then; returns how many."""
    return (await db.execute("DELETE FROM fleet_intents WHERE at < ?", (at,))).rowcount


async def refuse(db: aiosqlite.Connection, number: int, words: str) -> None:
    """Notes that an exit refuses an intent, for the command that waits for it."""
    await db.execute(
        "UPDATE OR REPLACE fleet_intents SET operation = ?, request = ? WHERE number = ?",
        (REFUSED, words.encode(), number),
    )


async def refuse_one(db: aiosqlite.Connection, number: int, words: str) -> None:
    """Does the same where an exit may refuse several in the same words. To be read by `words`."""
    await refuse(db, number, f"{number} {words}")


def words(refused: Intent) -> str:
    return refused.request.decode().partition(" ")[2]


async def outcome(db: aiosqlite.Connection, number: int) -> Intent | None:
    """Returns an intent that is to be asked still, or was refused; None: it was done."""
    rows = await db.execute_fetchall("SELECT * FROM fleet_intents WHERE number = ?", (number,))
    return next((Intent(*row) for row in rows), None)
