"""Queries: accounts that leave no trace, made for a self-test. Their ids tell them from all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.ids import TEMPORARY_PREFIX
from appliance.store.queries import accounts

if TYPE_CHECKING:
    import aiosqlite

    from appliance.domain.entities import Account


async def everyone(db: aiosqlite.Connection) -> list[Account]:
    """Deleted ones too."""
    rows = await db.execute_fetchall("SELECT * FROM accounts WHERE substr(id, 1, length(?1)) = ?1", (TEMPORARY_PREFIX,))
    return [accounts.from_row(row) for row in rows]


async def erase(db: aiosqlite.Connection, account_id: str) -> None:
    """The account with its tokens and ended sessions. While it has another session, that one and the account stay."""
    await db.execute("DELETE FROM sessions WHERE account_id = ? AND state = 'terminated'", (account_id,))
    await db.execute("DELETE FROM tokens WHERE account_id = ?", (account_id,))
    await db.execute(
        "DELETE FROM accounts WHERE id = ? AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.account_id = accounts.id)",
        (account_id,),
    )
