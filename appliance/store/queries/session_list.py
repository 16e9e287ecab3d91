"""Queries sessions to be listed, newest first, in pages, with only what a list shows of them.

Each page is a statement of its own. A statement that stays open for as long as the list is read, in a pager for hours,
would keep the server's WAL from being used again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from appliance.domain.entities import WORDS, Reason

if TYPE_CHECKING:
    import aiosqlite

ABOVE_ALL = 2**63 - 1  # the number of no session

_SELECT = """
SELECT s.number, s.id, a.name, s.tier, s.region, s.public_ip, s.public_key, s.address_offset, s.ipv6, s.state,
    s.created_at, s.expires_at, coalesce(p.bytes_in, s.bytes_in), coalesce(p.bytes_out, s.bytes_out),
    iif(p.bytes_in IS NULL, s.last_handshake_at, p.last_handshake_at), s.reason, s.note, s.told, s.terminated_at,
    s.device_id, d.name
FROM sessions s JOIN accounts a ON a.id = s.account_id
LEFT JOIN devices d ON d.id = s.device_id
LEFT JOIN peers p ON p.address_offset = s.address_offset AND s.state IN ('live', 'closing')
"""
_SELECT_ANY = "SELECT 1 FROM sessions s"


@dataclass(frozen=True, slots=True)
class Selection:
    """Selects sessions, never pending ones: they were not yet reported to a client."""

    account_id: str | None = None
    live: bool = False


class ListedSession(NamedTuple):
    """Holds what a list shows of a session, as `Session` names it. `number` is its place: newer ones have larger."""

    number: int
    id: str
    account: str
    tier: str
    region: str
    public_ip: str
    public_key: bytes
    address_offset: int
    ipv6: int
    state: str
    created_at: int
    expires_at: int
    bytes_in: int
    bytes_out: int
    last_handshake_at: int | None
    reason: str | None
    note: str
    told: str
    terminated_at: int | None
    device_id: str | None
    device_name: str | None

    @property
    def ending(self) -> str | None:
        """Returns why it ended, as `Session.ending` does."""
        return self.told if self.reason == Reason.ADMIN and self.told and self.told not in WORDS else self.reason


async def page(db: aiosqlite.Connection, selected: Selection, before: int, limit: int) -> list[ListedSession]:
    """Returns up to `limit` sessions, newest first, of those with a number below `before`."""
    where, parameters = _where(selected)
    async with await db.execute(
        f"{_SELECT} {where} AND s.number < ? ORDER BY s.number DESC LIMIT ?", (*parameters, before, limit)
    ) as cursor:
        cursor.row_factory = None  # plain tuples: a third of the time of reading goes into sqlite3.Row
        return [*map(ListedSession._make, await cursor.fetchall())]


async def are_more_than(db: aiosqlite.Connection, selected: Selection, count: int) -> bool:
    """Tells whether more than `count` sessions are selected."""
    where, parameters = _where(selected)
    found = await db.execute_fetchall(
        f"{_SELECT_ANY} {where} AND s.number < ? ORDER BY s.number DESC LIMIT 1 OFFSET ?",
        (*parameters, ABOVE_ALL, count),
    )
    return any(found)


def _where(selected: Selection) -> tuple[str, list[object]]:
    # The second part names the index, whose rows are in the order of their numbers for each state.
    where = "WHERE s.state = 'live' AND s.state <> 'terminated'" if selected.live else "WHERE s.state <> 'pending'"
    if selected.account_id is None:
        return where, []
    return f"{where} AND s.account_id = ?", [selected.account_id]
