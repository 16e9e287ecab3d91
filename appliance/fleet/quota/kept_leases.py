"""Keeps in the store what was borrowed, so that it is lent to this exit still after a restart."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from appliance.fleet.quota.holder import Borrowed, Lease, Slots
from appliance.store.queries import escrow
from appliance.store.queries.escrow import EscrowRow, LentOfWindow, LentSessions

if TYPE_CHECKING:
    from appliance.store.database import Store


class KeptLeases:
    """Writes several accounts in one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[str, EscrowRow] = {}
        self._unsaved: dict[str, EscrowRow] = {}
        self._writing: dict[str, EscrowRow] = {}
        self._turn = asyncio.Lock()

    async def load(self, wall_ms: int) -> dict[str, Borrowed]:
        """Returns what was borrowed, by account. Requests go on from the wall clock. Raises StoreUnavailable."""
        async with self._store.write() as db:
            await escrow.delete_without_account(db)
            rows = await escrow.everything(db)
        self._kept = {row.account_id: row for row in rows}
        return {row.account_id: _borrowed(row, max(row.q, wall_ms)) for row in rows}

    def note(self, account_id: str, borrowed: Borrowed) -> None:
        """Has it stored by the next `save`, unless that is stored already."""
        row = _row(account_id, borrowed)
        kept = self._writing.get(account_id) or self._kept.get(account_id)
        if kept is None or kept._replace(q=row.q) != row:
            self._unsaved[account_id] = row
        else:
            self._unsaved.pop(account_id, None)

    async def save(self) -> None:
        """Returns once all that was noted is stored. Raises StoreUnavailable: it is tried again by the next."""
        async with self._turn:
            if not self._unsaved:
                return
            rows = self._writing = self._unsaved
            self._unsaved = {}
            try:
                async with self._store.write() as db:
                    await escrow.put(db, rows.values())
            except BaseException:
                self._unsaved = rows | self._unsaved
                for account_id in rows:  # it may be stored all the same
                    self._kept.pop(account_id, None)
                raise
            finally:
                self._writing = {}
            self._kept |= rows


def _borrowed(row: EscrowRow, q: int) -> Borrowed:
    return Borrowed(Lease(*row.traffic), Lease(*row.time), Slots(*row.live), e=row.e, q=q, known=bool(row.known))


def _row(account_id: str, b: Borrowed) -> EscrowRow:
    live = LentSessions(b.slots.held, b.slots.free, b.slots.others)
    return EscrowRow(account_id, b.e, b.q, int(b.known), _window(b.traffic), _window(b.time), live)


def _window(lease: Lease) -> LentOfWindow:
    return LentOfWindow(lease.opened, lease.granted, lease.had, lease.free, lease.others)
