"""Holds in memory the sessions whose peers the tunnel should have, with their accounts and baselines.

Change it only after the store has committed the same change. Sessions are ordered by when they fall due, so that asking
for those that are due reads no others.
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
from appliance.store.priority_map import PriorityMap
from appliance.store.running_sums import RunningSums

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping

    import aiosqlite

    from appliance.domain.accounting import Reading
    from appliance.store.database import Store
    from appliance.store.running_sums import Running


class LiveSessions:
    """Holds live and closing sessions by public key, which no two of them share; pending ones are not here."""

    def __init__(self) -> None:
        self._heartbeat = Moment(0, 0, "")
        self._loads = 0
        self._stale = True  # until the first load
        self._sessions: dict[bytes, Session] = {}
        self._key_of: dict[str, bytes] = {}  # by session id
        self._baselines: dict[bytes, Baseline] = {}
        self._accounts: dict[str, Account] = {}
        self._touched: set[bytes] = set()
        self._charged: set[str] = set()
        self._order()

    # Sessions -----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def __getitem__(self, public_key: bytes) -> Session:
        """Returns the session with this key. Raises KeyError if there is none."""
        return self._sessions[public_key]

    def get(self, public_key: bytes) -> Session | None:
        """Returns the session with this key, or None if there is none."""
        return self._sessions.get(public_key)

    def public_keys(self) -> Collection[bytes]:
        """Returns the public keys of all sessions."""
        return self._sessions.keys()

    def by_id(self, session_id: str) -> Session | None:
        """Returns the session as the store has it; None if it is neither live nor closing, or memory is not in sync."""
        key = self._key_of.get(session_id)
        return None if key is None or self._stale else self._sessions[key]

    def baseline(self, public_key: bytes) -> Baseline | None:
        """Returns the counters as last counted, or None if they were never counted."""
        return self._baselines.get(public_key)

    # Accounts -----------------------------------------------------------------------------------------

    def account(self, account_id: str) -> Account | None:
        """Returns the account as the store has it; None if it has no sessions here, or memory is not in sync."""
        return self._accounts[account_id] if account_id in self._keys and not self._stale else None

    def owner(self, session: Session) -> Account:
        """Returns the account of one of these sessions."""
        return self._accounts[session.account_id]

    def owners(self) -> Iterator[Account]:
        """Yields each account with sessions here."""
        return (self._accounts[account_id] for account_id in self._keys)

    def owners_among(self, account_ids: Iterable[str]) -> Iterator[Account]:
        """Yields these accounts. Raises KeyError for one that has had no session here since the last load."""
        return (self._accounts[account_id] for account_id in account_ids)

    def of_account(self, account_id: str) -> list[Session]:
        """Returns the account's sessions here."""
        return [self._sessions[key] for key in self._keys.get(account_id, ())]

    def number_of(self, account_id: str) -> int:
        """Returns how many sessions the account has here."""
        return len(self._keys.get(account_id, ()))

    def number_live(self, account_id: str) -> int:
        """Returns how many sessions the account has here that are not closing."""
        keys = self._keys.get(account_id, set())
        return len(keys) - len(keys & self._closing)

    def running(self, account_id: str, boot_id: str) -> Running | None:
        """Returns the sums of the account's sessions; None if some were counted in another boot than this."""
        keys = self._keys.get(account_id, ())
        return self._running.of(account_id, boot_id, lambda: (self._sessions[key].counted_until_ms for key in keys))

    # What is due --------------------------------------------------------------------------------------

    def due(self, now: Moment, idle_ms: Mapping[Tier, int]) -> Iterator[bytes]:
        """Yields the keys of sessions that are closing, have expired, or may have been idle for too long; some twice.

        `idle_ms` is the idle timeout of each tier; 0: none.
        """
        yield from self._closing
        yield from self._expiries.up_to(now.wall_ms)
        for tier, timeout_ms in idle_ms.items():
            if timeout_ms:
                yield from self._quiet_since[tier].up_to(now.boot_ms - timeout_ms - 1)

    def next_expiry(self) -> int | None:
        """Returns when the next session expires (wall clock, ms), or None if there are no sessions."""
        return self._expiries.lowest()

    def last_counted_by(self, boot_ms: int) -> list[bytes]:
        """Returns the keys of sessions that were last counted at `boot_ms` (CLOCK_BOOTTIME) or before."""
        return self._counted_until.up_to(boot_ms)

    def take_charged(self) -> set[str]:
        """Returns the ids of accounts whose windows were charged since this was last called."""
        charged, self._charged = self._charged, set()
        return charged

    def take_touched(self) -> set[bytes]:
        """Returns the keys that have begun or ended, or changed sessions, since this was last called."""
        touched, self._touched = self._touched, set()
        return touched

    # Changes ------------------------------------------------------------------------------------------

    @property
    def in_sync(self) -> bool:
        """Tells whether memory is known to equal the store.

        A transaction that failed may have been committed all the same: from then on it is not, until the next load.
        """
        return not self._stale

    @property
    def loads(self) -> int:
        """Counts how often memory was read from the store."""
        return self._loads

    @property
    def heartbeat(self) -> Moment:
        """Returns when the server was last known to be up."""
        return self._heartbeat

    def note_heartbeat(self, now: Moment) -> None:
        """Notes a heartbeat that the store has."""
        self._heartbeat = now

    def mark_stale(self) -> None:
        """Notes that memory may differ from the store."""
        self._stale = True

    @asynccontextmanager
    async def committing(self, store: Store) -> AsyncIterator[aiosqlite.Connection]:
        """Yields a transaction that memory follows; marks memory as stale if its commit fails or is cancelled.

        Raises StoreUnavailable: nothing was committed, if memory is still in sync.
        """
        committing = False
        try:
            async with store.write() as db:
                yield db
                committing = True
        except (StoreUnavailable, asyncio.CancelledError):
            if committing:
                self.mark_stale()
            raise

    def load(
        self,
        sessions: Iterable[Session],
        baselines: Mapping[bytes, Baseline],
        accounts: Iterable[Account],
        heartbeat: Moment,
    ) -> None:
        """Replaces all with what was read from the store."""
        self._sessions = {s.public_key: s for s in sessions if s.state in (State.LIVE, State.CLOSING)}
        self._key_of = {s.id: s.public_key for s in self}
        self._accounts = {account.id: account for account in accounts}
        self._order()
        self._touched.update(self._sessions)
        # Under the sessions' own keys: the store returns a copy of each.
        self._baselines = {key: baselines[key] for key in self._sessions if key in baselines}
        self._heartbeat = heartbeat
        self._stale = False
        self._loads += 1

    def put(self, session: Session, account: Account | None = None) -> None:
        """Adds a session, or replaces the one with its key.

        `account` is required if it may have no other session here; its windows are kept if it has one.
        """
        if account is not None:
            self._accounts.setdefault(account.id, account)
        known = self._sessions.get(session.public_key)
        if known is not None:
            self._running.remove(known)
            del self._key_of[known.id]
            if known.account_id != session.account_id:
                self._leave_account(known)
        self._add(session)

    def drop(self, public_key: bytes) -> None:
        """Removes a session whose peer is gone, with its baseline."""
        session = self._sessions.pop(public_key)
        self._running.remove(session)
        del self._key_of[session.id]
        self._leave_account(session)
        self._closing.discard(public_key)
        self._baselines.pop(public_key, None)
        self._counted_until.discard(public_key)
        self._expiries.discard(public_key)
        self._touched.add(public_key)

    def drop_baselines(self, public_keys: Iterable[bytes]) -> None:
        """Forgets baselines: the counters of these peers start at zero again."""
        for key in public_keys:
            self._baselines.pop(key, None)

    def apply_count(self, readings: Iterable[Reading], accounts: Mapping[str, Account]) -> None:
        """Applies what the store has just added to totals, baselines and windows.

        Keeps each session's state and reason: those may have been decided since the reading was taken.
        """
        for r in readings:
            key = r.after.public_key
            known = self._sessions[key]
            self._sessions[key] = after = replace(r.after, state=known.state, reason=known.reason)
            self._running.add(after)
            self._running.remove(known)
            self._counted_until.put(key, r.after.counted_until_ms)
            self._quiet_with(r.after).put(key, r.after.quiet_since_ms)
            if r.baseline is not None:
                self._baselines[key] = r.baseline
        self._accounts.update(accounts)
        self._charged.update(accounts)

    def _order(self) -> None:
        """Orders all by public key: when each expires (wall clock), up to when it was counted, since when it is quiet.

        The last two are CLOCK_BOOTTIME of the boot that the session names; the last is by the account's tier.
        """
        self._expiries = PriorityMap({s.public_key: s.expires_at for s in self})
        self._counted_until = PriorityMap({s.public_key: s.counted_until_ms for s in self})
        self._running = RunningSums(self)
        quiet: dict[Tier, dict[bytes, int]] = {tier: {} for tier in Tier}
        self._keys: dict[str, set[bytes]] = {}  # of an account's sessions
        for s in self:
            quiet[self.owner(s).tier][s.public_key] = s.quiet_since_ms
            self._keys.setdefault(s.account_id, set()).add(s.public_key)
        self._quiet_since = {tier: PriorityMap(since) for tier, since in quiet.items()}
        self._closing = {s.public_key for s in self if s.state is State.CLOSING}

    def _quiet_with(self, session: Session) -> PriorityMap[bytes]:
        return self._quiet_since[self.owner(session).tier]

    def _add(self, session: Session) -> None:
        key = session.public_key
        self._sessions[key] = session
        self._running.add(session)
        self._key_of[session.id] = key
        self._keys.setdefault(session.account_id, set()).add(key)
        self._expiries.put(key, session.expires_at)
        self._counted_until.put(key, session.counted_until_ms)
        self._quiet_with(session).put(key, session.quiet_since_ms)
        if session.state is State.CLOSING:
            self._closing.add(key)
        else:
            self._closing.discard(key)
        self._touched.add(key)

    def _leave_account(self, session: Session) -> None:
        keys = self._keys[session.account_id]
        keys.discard(session.public_key)
        if not keys:
            del self._keys[session.account_id]
        self._quiet_with(session).discard(session.public_key)
