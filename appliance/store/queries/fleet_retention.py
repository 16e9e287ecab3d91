"""Takes away what a hub was told and need not know any longer, in pieces. See `retention` for a host's own.

A session's row stays, with its figures alone: an exit tells sums of all that it ever had, and the hub's are to be the
same. It is then as an exit tells of a session that it has deleted itself: with its lines, as long as it has some.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiosqlite

CREATED_BEFORE = """
SELECT session_id, node FROM fleet_sessions WHERE account_id <> '' AND created_at < :before
ORDER BY created_at LIMIT :most
"""
LINES_ENDED_BEFORE = """
SELECT ended_at, session_id, node FROM fleet_lines
WHERE ended_at < :before AND (ended_at, session_id, node) > (:ended_at, :session_id, :node)
ORDER BY ended_at, session_id, node LIMIT :most
"""
_ASKED = "SELECT value ->> 0 AS session_id, value ->> 1 AS node FROM json_each(:ids)"
SETTLED = f"""
SELECT DISTINCT session_id, node FROM ({_ASKED}) ended
WHERE NOT EXISTS (SELECT 1 FROM fleet_lines l WHERE l.session_id = ended.session_id AND l.node = ended.node
    AND (l.ended_at IS NULL OR l.ended_at >= :before))
"""  # noqa: S608
# The names are those of `SessionReport`; what is absent is empty there.
FORGET = f"""
UPDATE fleet_sessions SET account_id = '', state = 'terminated',
    said = json_remove(said, '$.state', '$.tier', '$.region', '$.ip', '$.reason', '$.expires_at', '$.ended_at', '$.dev',
        iif(coalesce(json_array_length(said, '$.lines'), 0) = 0, '$.acc', '$.state'))
WHERE (session_id, node) IN ({_ASKED})
"""  # noqa: S608 (constants)
FORGET_LINES = f"""
UPDATE fleet_sessions SET said = json_remove(said, '$.lines', iif(account_id = '', '$.acc', '$.lines'))
WHERE (session_id, node) IN ({_ASKED})
"""  # noqa: S608
DELETE_LINES = f"DELETE FROM fleet_lines WHERE (session_id, node) IN ({_ASKED})"  # noqa: S608


class ToldSession(NamedTuple):
    """Names a session and the exit that has told of it."""

    session_id: str
    node: str


class ToldLine(NamedTuple):
    """Names a line in the order in which lines ended."""

    ended_at: int
    session_id: str
    node: str

    @property
    def told(self) -> ToldSession:
        return ToldSession(self.session_id, self.node)


FIRST = ToldLine(-1, "", "")


async def created_before(db: aiosqlite.Connection, before: int, most: int) -> list[ToldSession]:
    """Returns up to `most` sessions that were created before this instant, and are still shown to their accounts."""
    return [ToldSession(*row) for row in await db.execute_fetchall(CREATED_BEFORE, {"before": before, "most": most})]


async def lines_ended_before(db: aiosqlite.Connection, before: int, after: ToldLine, most: int) -> list[ToldLine]:
    """Returns the places of up to `most` lines that ended before this instant, from one place on."""
    asked = {"before": before, "most": most, **after._asdict()}
    return [ToldLine(*row) for row in await db.execute_fetchall(LINES_ENDED_BEFORE, asked)]


async def settled(db: aiosqlite.Connection, told: Sequence[ToldSession], before: int) -> list[ToldSession]:
    """Returns those of the sessions all of whose lines ended before this instant."""
    rows = await db.execute_fetchall(SETTLED, {"ids": json.dumps(told), "before": before})
    return [ToldSession(*row) for row in rows]


async def forget_sessions(db: aiosqlite.Connection, told: Sequence[ToldSession]) -> None:
    """Leaves the figures of these sessions, and their lines with the account."""
    await db.execute(FORGET, {"ids": json.dumps(told)})


async def delete_lines(db: aiosqlite.Connection, told: Sequence[ToldSession], before: int) -> None:
    """Deletes all lines of these sessions that are still settled."""
    ids = {"ids": json.dumps(await settled(db, told, before))}
    await db.execute(DELETE_LINES, ids)
    await db.execute(FORGET_LINES, ids)
