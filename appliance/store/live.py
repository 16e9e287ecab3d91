"""The sessions whose peers the tunnel should hold, in memory, with their accounts and baselines.

Changed only after the store has committed the same change. Ordered by when they fall due, so that whoever looks for
what is due reads no others.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain.clock import Moment
from appliance.domain.entities import Account, Baseline, Session, State
from appliance.domain.errors import StoreUnavailable
from appliance.domain.tiers import Tier
from appliance.store.priority_map import Lowest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

    import aiosqlite

    from appliance.domain.accounting import Reading
    from appliance.store.database import Store


class LiveSessions:
    """Live and closing sessions by public key, which no two of them share. Pending ones are not here."""

    def __init__(self) -> None:
        self.by_key: dict[bytes, Session] = {}
        self._key_of: dict[str, bytes] = {}  # by session id
        self.baselines: dict[bytes, Baseline] = {}
        self.accounts: dict[str, Account] = {}
        self.beat = Moment(0, 0, "")  # when the server was last known to be up
        # A transaction that failed may have been committed all the same: memory may differ from the store.
        self.stale = True
        self.loads = 0  # how often memory was read from the store
        self._touched: set[bytes] = set()
        self._charged: set[str] = set()
        self._order()

    def load(
        self,
        sessions: Iterable[Session],
        baselines: Mapping[bytes, Baseline],
        accounts: Iterable[Account],
        beat: Moment,
    ) -> None:
        self.by_key = {s.public_key: s for s in sessions if s.state in (State.LIVE, State.CLOSING)}
        self._key_of = {s.id: s.public_key for s in self.by_key.values()}
        self.accounts = {account.id: account for account in accounts}
        self._order()
        self._touched.update(self.by_key)
        # Under the sessions' own keys: what was read brings a copy of each.
        self.baselines = {key: baselines[key] for key in self.by_key if key in baselines}
        self.beat = beat
        self.stale = False
        self.loads += 1

    def __len__(self) -> int:
        return len(self.by_key)

    def put(self, session: Session, account: Account | None = None) -> None:
        """`account` for one that may have no other session here; its windows are kept where it has."""
        if account is not None:
            self.accounts.setdefault(account.id, account)
        known = self.by_key.get(session.public_key)
        if known is not None:
            del self._key_of[known.id]
            if known.account_id != session.account_id:
                self._leave_account(known)
        self._add(session)

    def drop(self, public_key: bytes) -> None:
        """The peer is gone, its baseline with it."""
        session = self.by_key.pop(public_key)
        del self._key_of[session.id]
        self._leave_account(session)
        self.closing.discard(public_key)
        self.baselines.pop(public_key, None)
        self.counted_until.discard(public_key)
        self.expiries.discard(public_key)
        self._touched.add(public_key)

    def take(self, readings: Iterable[Reading], accounts: Mapping[str, Account]) -> None:
        """What the store has just added to totals, baselines and windows.

        No reading says whether a session is to end: that may have been decided since it was taken.
        """
        for r in readings:
            key = r.after.public_key
            known = self.by_key[key]
            self.by_key[key] = replace(r.after, state=known.state, reason=known.reason)
            self.counted_until.put(key, r.after.counted_until_ms)
            self._quiet_with(r.after).put(key, r.after.quiet_since_ms)
            if r.baseline is not None:
                self.baselines[key] = r.baseline
        self.accounts.update(accounts)
        self._charged.update(accounts)

    @asynccontextmanager
    async def committing(self, store: Store) -> AsyncIterator[aiosqlite.Connection]:
        """A transaction that memory follows. One that failed, or was cancelled, may have been made all the same."""
        try:
            async with store.write() as db:
                yield db
        except (StoreUnavailable, asyncio.CancelledError):
            self.stale = True
            raise

    def session(self, session_id: str) -> Session | None:
        """The session as the store has it, if it is live or closing."""
        key = self._key_of.get(session_id)
        return None if key is None or self.stale else self.by_key[key]

    def account(self, account_id: str) -> Account | None:
        """The account as the store has it, if it has sessions here."""
        return self.accounts[account_id] if account_id in self._keys and not self.stale else None

    def with_sessions(self) -> Iterator[Account]:
        """The accounts that have any."""
        return (self.accounts[account_id] for account_id in self._keys)

    def of_account(self, account_id: str) -> list[Session]:
        return [self.by_key[key] for key in self._keys.get(account_id, ())]

    def charged(self) -> set[str]:
        """The accounts whose windows were charged, by whomever, since this was last asked."""
        charged, self._charged = self._charged, set()
        return charged

    def touched(self) -> set[bytes]:
        """The keys that have begun or ended, or belong to another session, since this was last asked."""
        touched, self._touched = self._touched, set()
        return touched

    def _order(self) -> None:
        """By public key: when each expires (wall clock), up to when it was counted and since when it has been quiet
        (CLOCK_BOOTTIME of the boot that the session names, by the account's tier)."""
        live = self.by_key.values()
        self.expiries = Lowest({s.public_key: s.expires_at for s in live})
        self.counted_until = Lowest({s.public_key: s.counted_until_ms for s in live})
        quiet: dict[Tier, dict[bytes, int]] = {tier: {} for tier in Tier}
        self._keys: dict[str, set[bytes]] = {}  # of an account's sessions
        for s in live:
            quiet[self.accounts[s.account_id].tier][s.public_key] = s.quiet_since_ms
            self._keys.setdefault(s.account_id, set()).add(s.public_key)
        self.quiet_since = {tier: Lowest(since) for tier, since in quiet.items()}
        self.closing = {s.public_key for s in live if s.state is State.CLOSING}

    def _quiet_with(self, session: Session) -> Lowest[bytes]:
        return self.quiet_since[self.accounts[session.account_id].tier]

    def _add(self, session: Session) -> None:
        key = session.public_key
        self.by_key[key] = session
        self._key_of[session.id] = key
        self._keys.setdefault(session.account_id, set()).add(key)
        self.expiries.put(key, session.expires_at)
        self.counted_until.put(key, session.counted_until_ms)
        self._quiet_with(session).put(key, session.quiet_since_ms)
        if session.state is State.CLOSING:
            self.closing.add(key)
        else:
            self.closing.discard(key)
        self._touched.add(key)

    def _leave_account(self, session: Session) -> None:
        keys = self._keys[session.account_id]
        keys.discard(session.public_key)
        if not keys:
            del self._keys[session.account_id]
        self._quiet_with(session).discard(session.public_key)
