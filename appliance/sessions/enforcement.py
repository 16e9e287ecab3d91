"""Decides which sessions must end now, and when to look again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain import accounting, quota, termination
from appliance.domain.entities import Reason, State
from appliance.domain.throughput import Speed
from appliance.domain.tiers import Tier
from appliance.metering import usage
from appliance.metering.lending import GrantSource
from appliance.store.rows.account_order import AccountOrder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from appliance.config.plans import Terms
    from appliance.domain.clock import Moment
    from appliance.domain.entities import Account, Session
    from appliance.metering.meter import Observation
    from appliance.store.live import LiveSessions

# The time between two readings of the counters: a little under the second in which a change must be seen.
LOOK_MS = 900
# The same where an account may run out of bytes before that: it bounds how far an account can pass its limit.
CLOSE_LOOK_MS = 250
SHORTEST_WAIT_MS = 20


class Enforcement:
    """Checks accounts that may have used up a quota and sessions that may be over, and no others."""

    def __init__(self, live: LiveSessions, terms: Terms, lending: GrantSource | None = None) -> None:
        self._live = live
        self._terms = terms
        self._lending = lending or GrantSource()
        self._speed = Speed()
        self._due_ms = 0  # CLOCK_BOOTTIME
        self._bytes_left = AccountOrder()  # of limited accounts, as last measured
        self._time_ends = AccountOrder()  # CLOCK_BOOTTIME, if their sessions run on
        self._basis: tuple[int, object] | None = None  # the load and the terms that these two were computed from
        self._wall_ahead_ms: int | None = None  # of CLOCK_BOOTTIME, at the last look

    @property
    def fastest(self) -> int:
        """Returns the highest rate that was seen on this exit, in bytes per second."""
        return self._speed.fastest

    def decide(self, seen: Observation | None, now: Moment) -> dict[bytes, Reason]:
        """Returns the public keys of the sessions that must end, with the reasons.

        Counts what was just read; `seen` None: nothing could be read.
        """
        if seen is not None:
            self._speed = self._speed.after(seen.total_bytes, now.boot_ms)
        quotas = {account.id: self._measure(account, seen, now) for account in self._to_measure(seen, now)}
        for account_id, left in quotas.items():
            self._remember(account_id, left, self._carrying(account_id, seen, now), now)
        self._due_ms = now.boot_ms + self._next_due(now)
        ending = {}
        for key in self._candidates(quotas, now):
            reason = self._reason(self._live[key], quotas, seen, now)
            if reason is not None:
                ending[key] = reason
        return ending

    def opened(self, session: Session, now: Moment) -> bool:
        """Takes a new session into account; returns whether the next look is due earlier for it than it was."""
        due = min(LOOK_MS, session.expires_at - now.wall_ms)
        account = self._live.owner(session)
        if self._is_limited(account):
            self._remember(account.id, self._measure(account, None, now), self._carrying(account.id, None, now), now)
            due = min(due, self._next_due(now))
        earlier = now.boot_ms + due < self._due_ms
        self._due_ms = min(self._due_ms, now.boot_ms + due)
        return earlier

    def seconds_to_next_look(self, now: Moment) -> float:
        """Returns the time in which no session can become due, at least SHORTEST_WAIT_MS."""
        due = [LOOK_MS, self._due_ms - now.boot_ms]
        if self._lending.is_urgent:
            due.append(0)
        expiry = self._live.next_expiry()
        if expiry is not None:
            due.append(expiry - now.wall_ms)
        return max(SHORTEST_WAIT_MS, min(due)) / 1000

    # Accounts -----------------------------------------------------------------------------------------

    def _to_measure(self, seen: Observation | None, now: Moment) -> Iterable[Account]:
        """Returns the limited accounts that may have used up something since they were last measured.

        Returns all limited accounts after a reload, after new terms, and after a step of the wall clock.
        """
        charged, stepped = self._live.take_charged(), self._stepped(now)
        lent = {account_id for account_id in self._lending.take_limits_changed() if self._live.number_of(account_id)}
        basis = (self._live.loads, self._terms.tiers)
        if basis != self._basis or stepped:
            self._basis, self._bytes_left, self._time_ends = basis, AccountOrder(), AccountOrder()
            return [account for account in self._live.owners() if self._is_limited(account)]
        counted = {account.id: account for account in self._live.owners_among(charged)}
        counted |= {} if seen is None else seen.count.accounts
        resumed = () if seen is None else seen.resumed
        limited = (account for account in counted.values() if self._is_limited(account))
        new = [account.id for account in limited if account.id in resumed or self._is_new(account)]
        near = {*self._time_ends.up_to(now.boot_ms), *self._bytes_left.up_to(self._speed.bytes(LOOK_MS))}
        accounts = {a.id: a for a in (*self._live.owners_numbered(near), *self._live.owners_among({*new, *lent}))}
        return [account for account in accounts.values() if self._is_limited(account)]

    def _is_new(self, account: Account) -> bool:
        """Tells whether an account that was counted has to be measured anew; otherwise notes its bytes that are left.

        What has been counted changes no account's time, which passes for all of its sessions that carry, and for no
        more than when it was measured unless one has resumed. Of its bytes, a window that is over has more left than
        this, and is measured when it seems to be near its limit.
        """
        if not self._live.number_of(account.id):
            return True
        tier, lent = self._terms.tiers[account.tier], self._lending.lent
        if tier.bytes_limit:
            grant = None if lent is None else lent(account, tier, account.windows)
            left = tier.bytes_limit - account.windows.traffic.used if grant is None else grant.left_bytes
            self._bytes_left.put(self._live.account_number(account.id), max(0, left))
        return False

    def _stepped(self, now: Moment) -> bool:
        """Tells whether the wall clock was set since the last look: set back, it reopens a window that was over.

        A difference of a millisecond is the rounding of two clocks.
        """
        before, self._wall_ahead_ms = self._wall_ahead_ms, now.wall_ms - now.boot_ms
        return before is None or abs(self._wall_ahead_ms - before) > 1

    def _remember(self, account_id: str, left: quota.Quota, carrying: int, now: Moment) -> None:
        """Notes when the account may run out, if so many of its sessions go on. Forgets accounts without sessions."""
        sessions, ms_left = self._live.number_of(account_id), left.ms_left(carrying)
        number = self._live.account_number(account_id)
        self._bytes_left.put(number, left.bytes_left if sessions else None)
        self._time_ends.put(number, None if ms_left is None else now.boot_ms + ms_left)

    def _next_due(self, now: Moment) -> int:
        """Returns in how many ms an account may have run out, at most LOOK_MS."""
        due = LOOK_MS
        bytes_left, ends_at = self._bytes_left.lowest(), self._time_ends.lowest()
        if bytes_left is not None:
            due = min(due, max(CLOSE_LOOK_MS, self._speed.ms(bytes_left)))
        return due if ends_at is None else min(due, ends_at - now.boot_ms)

    def _is_limited(self, account: Account) -> bool:
        tier = self._terms.tiers[account.tier]
        return bool(tier.bytes_limit or tier.seconds_limit)

    def _measure(self, account: Account, seen: Observation | None, now: Moment) -> quota.Quota:
        tier = self._terms.tiers[account.tier]
        if seen is None or account.id not in seen.count.accounts:
            return usage.in_memory(self._live, account, tier, now, self._lending.lent)
        sessions = [seen.count.sessions.get(s.public_key, s) for s in self._live.of_account(account.id)]
        uses = accounting.unspent(sessions, self._live.heartbeat, now)
        return quota.measure(seen.count.accounts[account.id], tier, uses, now.wall_ms, self._lending.lent)

    def _carrying(self, account_id: str, seen: Observation | None, now: Moment) -> int:
        """Returns for how many of the account's sessions time passes."""
        sums = self._live.running(account_id, now)
        if sums is not None and (seen is None or account_id not in seen.count.accounts):
            return sums.number
        counted = {} if seen is None else seen.count.sessions
        sessions = (counted.get(s.public_key, s) for s in self._live.of_account(account_id))
        return sum(s.counted_boot_id == now.boot_id and s.carries_until_ms > now.boot_ms for s in sessions)

    # Sessions -----------------------------------------------------------------------------------------

    def _candidates(self, quotas: dict[str, quota.Quota], now: Moment) -> Iterator[bytes]:
        """Yields the keys of sessions that may have to end; some twice."""
        yield from self._live.due(now, {tier: self._terms.tiers[tier].idle_timeout * 1000 for tier in Tier})
        for account_id, left in quotas.items():
            if left.exceeded:
                yield from self._live.keys_of_account(account_id)

    def _reason(
        self, session: Session, quotas: dict[str, quota.Quota], seen: Observation | None, now: Moment
    ) -> Reason | None:
        if session.state is State.CLOSING:
            return session.reason
        key = session.public_key
        after = session if seen is None else seen.count.sessions.get(key, session)
        tier = self._terms.tiers[self._live.owner(session).tier]
        reason = termination.decide(after, tier, quotas.get(session.account_id), now)
        if reason is Reason.IDLE and (seen is None or key not in seen.dump.peers):
            # A peer that is missing, or that an incomplete dump does not show, may have had a handshake.
            return None
        if reason is Reason.IDLE and session.device_id and after.carries_until_ms > now.boot_ms:
            return None  # while a device's tunnel can carry, what it carries is of a session
        return reason
