"""Holds in memory the sessions whose peers the tunnel should have, with their accounts and baselines.

Change it only after the store has committed the same change. Sessions are rows of bytes (`rows/`): a Session is made
when one is asked for, and is a value. They are ordered by when they fall due, so that asking for those that are due
reads no others.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from appliance.domain.carrying import Span
from appliance.domain.clock import Moment
from appliance.domain.errors import StoreUnavailable
from appliance.store.public_keys import PublicKeys
from appliance.store.rows.session_rows import SessionRows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence, Set

    import aiosqlite

    from appliance.domain.accounting import Reading
    from appliance.domain.entities import Account, Baseline, Session
    from appliance.domain.tiers import Tier
    from appliance.store.database import Store


class Running(Struct, frozen=True, gc=False):
    """Sums an account's sessions that carry: how many, and up to when they were counted (ms of CLOCK_BOOTTIME): all
    added, and the first of them; None: there are none. `stopped`: of those that did, since they were counted."""

    number: int = 0
    counted_until_ms: int = 0
    first_ms: int | None = None
    stopped: Sequence[Span] = ()


class LiveSessions:
    """Holds live and closing sessions by public key, which no two of them share; pending ones are not here."""

    def __init__(self) -> None:
        self._heartbeat = Moment(0, 0, "")
        self._loads = 0
        self._stale = True  # until the first load
        self._rows = SessionRows()
        self._touched: set[bytes] = set()
        self._dropped: set[bytes] = set()
        self._charged: set[str] = set()
        self._changed: set[str] = set()

    # Sessions -----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Session]:
        """Yields each session, but for those that are dropped meanwhile; after a load, those from before it."""
        rows = self._rows
        return (rows.session(row) for row in rows.all())

    def __getitem__(self, public_key: bytes) -> Session:
        """Returns the session with this key. Raises KeyError if there is none."""
        return self._rows.session(self._row(public_key))

    def get(self, public_key: bytes) -> Session | None:
        """Returns the session with this key, or None if there is none."""
        row = self._rows.find(public_key)
        return None if row < 0 else self._rows.session(row)

    def public_keys(self) -> Set[bytes]:
        """Returns the public keys of all sessions."""
        return PublicKeys(self._rows)

    def by_id(self, session_id: str) -> Session | None:
        """Returns the session as the store has it; None if it is neither live nor closing, or memory is not in sync."""
        row = self._rows.find_id(session_id)
        return None if row < 0 or self._stale else self._rows.session(row)

    def of_device(self, device_id: str) -> Session | None:
        """Returns the session of a device, with the key that it had then; None: it has none."""
        row = self._rows.find_of_device(device_id)
        return None if row is None else self._rows.session(row)

    def baseline(self, public_key: bytes) -> Baseline | None:
        """Returns the counters as last counted, or None if they were never counted."""
        row = self._rows.find(public_key)
        return None if row < 0 else self._rows.baseline(row)

    def live_by_tier(self) -> Mapping[Tier, int]:
        """Counts the sessions that are not closing by the tier that they were opened with."""
        return self._rows.live_by_tier()

    def number_of_devices(self) -> int:
        """Returns how many devices have a session that is not closing."""
        return self._rows.number_of_devices()

    # Accounts -----------------------------------------------------------------------------------------

    def account(self, account_id: str) -> Account | None:
        """Returns the account as the store has it; None if it has no sessions here, or memory is not in sync."""
        owner = self._rows.owners.get(account_id)
        return None if owner is None or self._stale else owner.account

    def owner(self, session: Session) -> Account:
        """Returns the account of one of these sessions."""
        return self._rows.owners.of(session.account_id).account

    def owners(self) -> Iterator[Account]:
        """Yields each account with sessions here."""
        return (owner.account for owner in self._rows.owners)

    def owners_among(self, account_ids: Iterable[str]) -> Iterator[Account]:
        """Yields these accounts. Raises KeyError for one that has had no session here since the last load."""
        return (self._rows.owners.of(account_id).account for account_id in account_ids)

    def owners_numbered(self, numbers: Iterable[int]) -> Iterator[Account]:
        """Yields the accounts with these numbers."""
        return (self._rows.owners.by_number[number].account for number in numbers)

    def account_number(self, account_id: str) -> int:
        """Returns the number of an account that has or had sessions here: its own until the next load."""
        return self._rows.owners.of(account_id).number

    def of_account(self, account_id: str) -> list[Session]:
        """Returns the account's sessions here."""
        return [self._rows.session(row) for row in self._rows_of(account_id)]

    def keys_of_account(self, account_id: str) -> list[bytes]:
        """Returns the public keys of the account's sessions here."""
        return [self._rows.key(row) for row in self._rows_of(account_id)]

    def number_of(self, account_id: str) -> int:
        """Returns how many sessions the account has here."""
        owner = self._rows.owners.get(account_id)
        return 0 if owner is None else owner.sessions

    def number_live(self, account_id: str) -> int:
        """Returns how many sessions the account has here that are not closing."""
        owner = self._rows.owners.get(account_id)
        return 0 if owner is None else owner.sessions - owner.closing

    def running(self, account_id: str, now: Moment) -> Running | None:
        """Returns the sums of the account's sessions; None if some were counted in another boot than this."""
        if not self._rows.counted_only_in(now.boot_id):
            return None
        owner = self._rows.owners.get(account_id)
        if owner is None:
            return Running()
        stopped = [Span(until, carried) for until, carried in self._rows.stopped_of(owner, now.boot_ms)]
        if not owner.carrying:
            return Running(stopped=stopped)
        return Running(owner.carrying, owner.counted_until_ms, self._rows.first_counted_ms(owner), stopped)

    def ran_ms(self, account_id: str, from_ms: int, now_ms: int) -> int:
        """Returns how long the account's sessions that carry have run since they were counted, from an instant on.

        All were counted in the boot of these instants (CLOCK_BOOTTIME).
        """
        owner = self._rows.owners.get(account_id)
        return 0 if owner is None else self._rows.ran_ms(owner, from_ms, now_ms)

    def by_account(self, public_keys: Set[bytes], least: int) -> Iterator[list[bytes]]:
        """Yields these keys of sessions in lists of at least so many, an account's in one; the last may be shorter."""
        found = (row for key in public_keys if (row := self._rows.find(key)) >= 0)
        numbers = dict.fromkeys(self._rows.owner(row).number for row in found)
        taken: list[bytes] = []
        for number in numbers:
            rows = self._rows.owners.rows(self._rows.owners.by_number[number])
            taken += [key for row in rows if (key := self._rows.key(row)) in public_keys]
            if len(taken) >= least:
                yield taken
                taken = []
        if taken:
            yield taken

    # What is due --------------------------------------------------------------------------------------

    def due(self, now: Moment, idle_ms: Mapping[Tier, int]) -> list[bytes]:
        """Returns the keys of sessions that are closing, have expired, or may have been idle for too long; some twice.

        `idle_ms` is the idle timeout of each tier; 0: none.
        """
        rows = self._rows
        found = [*rows.closing, *rows.expiries.up_to(now.wall_ms)]
        for tier, timeout_ms in idle_ms.items():
            if timeout_ms:
                found += rows.quiet_since[tier].up_to(now.boot_ms - timeout_ms - 1)
        return [rows.key(row) for row in found]

    def next_expiry(self) -> int | None:
        """Returns when the next session expires (wall clock, ms), or None if there are no sessions."""
        return self._rows.expiries.lowest()

    def stopped(self, now: Moment, most: int) -> list[bytes]:
        """Returns the keys of some sessions that were last counted before their tunnels could carry no longer.

        They are in the order of their addresses: neighbours share pages of the store.
        """
        return [self._rows.key(row) for row in self._rows.stopped(now.boot_ms, most)]

    def take_charged(self) -> set[str]:
        """Returns the ids of accounts whose windows were charged since this was last called."""
        charged, self._charged = self._charged, set()
        return charged

    def take_changed_accounts(self) -> set[str]:
        """Returns the ids of accounts whose sessions have begun or ended, since this was last called."""
        changed, self._changed = self._changed, set()
        return changed

    def take_touched(self) -> set[bytes]:
        """Returns the keys that have begun or ended, or changed sessions, since this was last called.

        With a load, all may have: see `loads`.
        """
        touched, self._touched = self._touched, set()
        return touched

    def take_dropped(self) -> set[bytes]:
        """Returns the keys of sessions that were dropped since this was last called; others may have them by now."""
        dropped, self._dropped = self._dropped, set()
        return dropped

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

    @contextmanager
    def _following(self) -> Iterator[SessionRows]:
        """Yields the rows, for a change that the store has; marks memory as stale if it fails, on the way or at all."""
        try:
            yield self._rows
        except BaseException:
            self.mark_stale()
            raise

    def load(self, rows: SessionRows, heartbeat: Moment) -> None:
        """Replaces all with what was read from the store."""
        self._rows = rows
        self._heartbeat = heartbeat
        self._stale = False
        self._loads += 1

    def know(self, account: Account) -> None:
        """Adds an account that may have no session here."""
        with self._following() as rows:
            rows.owners.add(account)

    def put(self, session: Session, account: Account | None = None) -> None:
        """Adds a session, or replaces the one with its key.

        `account` is required if it may have no other session here; its windows are kept if it has one.
        """
        with self._following() as rows:
            if account is not None:
                rows.owners.add(account)
            rows.put(session)
        self._touched.add(session.public_key)
        self._changed.add(session.account_id)

    def drop(self, public_key: bytes) -> None:
        """Removes a session whose peer is gone, with its baseline."""
        with self._following() as rows:
            row = self._row(public_key)
            self._changed.add(rows.owner(row).account.id)
            rows.drop(row)
        self._touched.add(public_key)
        self._dropped.add(public_key)

    def put_baseline(self, public_key: bytes, baseline: Baseline) -> None:
        """Sets the counters of a session's peer as they were last counted."""
        with self._following() as rows:
            rows.set_baseline(self._row(public_key), baseline)

    def drop_baselines(self, public_keys: Iterable[bytes]) -> None:
        """Forgets baselines: the counters of these peers start at zero again."""
        with self._following() as rows:
            for key in public_keys:
                if (row := rows.find(key)) >= 0:
                    rows.set_baseline(row, None)

    def apply_count(self, readings: Iterable[Reading], accounts: Mapping[str, Account]) -> None:
        """Applies what the store has just added to figures, baselines and windows.

        Keeps the rest of each session: its state and reason may have been decided since the reading was taken.
        """
        with self._following() as rows:
            for r in readings:
                row = self._row(r.after.public_key)
                rows.count(row, r.after)
                if r.baseline is not None:
                    rows.set_baseline(row, r.baseline)
            for account in accounts.values():
                rows.update_account(account)
        self._charged.update(accounts)

    def _row(self, public_key: bytes) -> int:
        row = self._rows.find(public_key)
        if row < 0:
            raise KeyError(public_key)
        return row

    def _rows_of(self, account_id: str) -> list[int]:
        owner = self._rows.owners.get(account_id)
        return [] if owner is None else self._rows.owners.rows(owner)
