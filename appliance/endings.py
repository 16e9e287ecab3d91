"""Which sessions have to end now, and when to look again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance import accounting
from appliance.entities import Reason, State
from appliance.policy import quota, termination
from appliance.policy.speed import Speed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.clock import Moment
    from appliance.entities import Account, Session
    from appliance.live import LiveSessions
    from appliance.meter import Observation
    from appliance.terms import Terms

# Between two readings of the counters. A little under the second that a change may take to be seen.
LOOK_MS = 900
# Where an account may run out of bytes before that. What bounds how far it can go past its limit.
CLOSE_LOOK_MS = 250
SHORTEST_WAIT_MS = 20


class Endings:
    def __init__(self, live: LiveSessions, terms: Terms) -> None:
        self._live = live
        self._terms = terms
        self._speed = Speed()
        self._due_ms = 0  # CLOCK_BOOTTIME

    def decide(self, seen: Observation | None, now: Moment) -> dict[bytes, Reason]:
        """(public key, reason) of every session that has to end, what was just read included."""
        if seen is not None:
            self._speed = self._speed.after(seen.total_bytes, now.boot_ms)
        quotas = dict(self._quotas(seen, now))
        self._due_ms = now.boot_ms + min((self._due(*known) for known in quotas.items()), default=LOOK_MS)
        ending = {}
        for key, session in self._live.by_key.items():
            reason = session.reason
            if session.state is not State.CLOSING:
                after = session if seen is None else seen.count.sessions.get(key, session)
                tier = self._terms.tiers[self._live.accounts[session.account_id].tier]
                reason = termination.decide(after, tier, quotas.get(session.account_id), now)
                if reason is Reason.IDLE and (seen is None or key not in seen.dump.peers):
                    # A peer that is away, or that a dump cut short does not show, may have been heard.
                    reason = None
            if reason is not None:
                ending[key] = reason
        return ending

    def opened(self, session: Session, now: Moment) -> bool:
        """A session has begun: whether the next look is due earlier for it than it was."""
        due = min(LOOK_MS, session.expires_at - now.wall_ms)
        account = self._live.accounts[session.account_id]
        if self._is_limited(account):
            due = min(due, self._due(account.id, self._measure(account, None, now)))
        earlier = now.boot_ms + due < self._due_ms
        self._due_ms = min(self._due_ms, now.boot_ms + due)
        return earlier

    def seconds_to_next_look(self, now: Moment) -> float:
        due = [LOOK_MS, self._due_ms - now.boot_ms]
        expiry = self._live.next_expiry()
        if expiry is not None:
            due.append(expiry - now.wall_ms)
        return max(SHORTEST_WAIT_MS, min(due)) / 1000

    def _due(self, account_id: str, left: quota.Quota) -> int:
        """In how many ms this account has to be looked at."""
        due = LOOK_MS
        if left.bytes_left is not None:
            due = min(due, max(CLOSE_LOOK_MS, self._speed.ms(left.bytes_left)))
        time_left = left.ms_left(len(self._live.of_account(account_id)))
        return due if time_left is None else min(due, time_left)

    def _quotas(self, seen: Observation | None, now: Moment) -> Iterator[tuple[str, quota.Quota]]:
        """Of the accounts that are limited."""
        for account in self._live.with_sessions():
            if self._is_limited(account):
                yield account.id, self._measure(account, seen, now)

    def _is_limited(self, account: Account) -> bool:
        tier = self._terms.tiers[account.tier]
        return bool(tier.bytes_limit or tier.seconds_limit)

    def _measure(self, account: Account, seen: Observation | None, now: Moment) -> quota.Quota:
        sessions = self._live.of_account(account.id)
        if seen is not None:
            account = seen.count.accounts.get(account.id, account)
            sessions = [seen.count.sessions.get(s.public_key, s) for s in sessions]
        uses = [accounting.use(accounting.running(s, now), now) for s in sessions]
        return quota.measure(account, self._terms.tiers[account.tier], uses, now.wall_ms)
