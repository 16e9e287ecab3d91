"""The sessions whose peers the tunnel should hold, in memory, with their accounts and baselines.

Changed only after the store has committed the same change.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.clock import Moment
from appliance.entities import Account, Baseline, Session, State
from appliance.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

    import aiosqlite

    from appliance.store.connection import Store
    from appliance.store.sessions import Reading


class LiveSessions:
    """Live and closing sessions by public key, which no two of them share. Pending ones are not here."""

    def __init__(self) -> None:
        self.by_key: dict[bytes, Session] = {}
        self._keys: dict[str, set[bytes]] = {}  # of an account's sessions
        self.baselines: dict[bytes, Baseline] = {}
        self.accounts: dict[str, Account] = {}
        self.beat = Moment(0, 0, "")  # when the server was last known to be up
        # A transaction that failed may have been committed all the same: memory may differ from the store.
        self.stale = True

    def load(
        self,
        sessions: Iterable[Session],
        baselines: Mapping[bytes, Baseline],
        accounts: Iterable[Account],
        beat: Moment,
    ) -> None:
        self.by_key, self._keys = {}, {}
        for session in sessions:
            if session.state in (State.LIVE, State.CLOSING):
                self._add(session)
        self.baselines = {key: b for key, b in baselines.items() if key in self.by_key}
        self.accounts = {account.id: account for account in accounts}
        self.beat = beat
        self.stale = False

    def __len__(self) -> int:
        return len(self.by_key)

    def put(self, session: Session, account: Account | None = None) -> None:
        """`account` for one that may have no other session here; its windows are kept where it has."""
        self._add(session)
        if account is not None:
            self.accounts.setdefault(account.id, account)

    def drop(self, public_key: bytes) -> None:
        """The peer is gone, its baseline with it."""
        account_id = self.by_key.pop(public_key).account_id
        self._keys[account_id].discard(public_key)
        if not self._keys[account_id]:
            del self._keys[account_id]
        self.baselines.pop(public_key, None)

    def take(self, readings: Iterable[Reading], accounts: Mapping[str, Account]) -> None:
        """What the store has just added to totals, baselines and windows.

        No reading says whether a session is to end: that may have been decided since it was taken.
        """
        for r in readings:
            known = self.by_key[r.after.public_key]
            self.by_key[r.after.public_key] = replace(r.after, state=known.state, reason=known.reason)
            if r.baseline is not None:
                self.baselines[r.after.public_key] = r.baseline
        self.accounts.update(accounts)

    @asynccontextmanager
    async def committing(self, store: Store) -> AsyncIterator[aiosqlite.Connection]:
        """A transaction that memory follows. One that failed may have been made all the same."""
        try:
            async with store.write() as db:
                yield db
        except StoreUnavailable:
            self.stale = True
            raise

    def account(self, account_id: str) -> Account | None:
        """The account as the store has it, if it has sessions here."""
        return self.accounts[account_id] if account_id in self._keys and not self.stale else None

    def with_sessions(self) -> Iterator[Account]:
        """The accounts that have any."""
        return (self.accounts[account_id] for account_id in self._keys)

    def of_account(self, account_id: str) -> list[Session]:
        return [self.by_key[key] for key in self._keys.get(account_id, ())]

    def next_expiry(self) -> int | None:
        """Wall-clock ms at which the next live session ends by itself, if any."""
        return min((s.expires_at for s in self.by_key.values()), default=None)

    def _add(self, session: Session) -> None:
        self.by_key[session.public_key] = session
        self._keys.setdefault(session.account_id, set()).add(session.public_key)
