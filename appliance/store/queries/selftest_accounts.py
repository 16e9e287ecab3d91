"""Queries temporary accounts of self-tests, identified by their id prefix; `erase` leaves no trace of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.ids import TEMPORARY_PREFIX
from appliance.store.queries import accounts

if TYPE_CHECKING:
    import aiosqlite

    from appliance.domain.entities import Account


async def everyone(db: aiosqlite.Connection) -> list[Account]:
    """Returns all self-test accounts, deleted ones too."""
    rows = await db.execute_fetchall("SELECT * FROM accounts WHERE substr(id, 1, length(?1)) = ?1", (TEMPORARY_PREFIX,))
    return [accounts.from_row(row) for row in rows]


async def erase(db: aiosqlite.Connection, account_id: str) -> None:
    """Erases the account with its tokens and ended sessions. Keeps the account while it has other sessions."""
    await db.execute("DELETE FROM sessions WHERE account_id = ? AND state = 'terminated'", (account_id,))
    await db.execute("DELETE FROM tokens WHERE account_id = ?", (account_id,))
    await db.execute(
        "DELETE FROM accounts WHERE id = ? AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.account_id = accounts.id)",
        (account_id,),
    )
