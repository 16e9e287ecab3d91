"""Which sessions have to end now, and when to look again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain import accounting, quota, termination
from appliance.domain.entities import Reason, State
from appliance.domain.throughput import Speed
from appliance.store.priority_map import Lowest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from appliance.config.plans import Terms
    from appliance.domain.clock import Moment
    from appliance.domain.entities import Account, Session
    from appliance.metering.meter import Observation
    from appliance.store.live import LiveSessions

# Between two readings of the counters. A little under the second that a change may take to be seen.
LOOK_MS = 900
# Where an account may run out of bytes before that. What bounds how far it can go past its limit.
CLOSE_LOOK_MS = 250
SHORTEST_WAIT_MS = 20


class Endings:
    """Looks at accounts that may have run out, and at sessions that may be over; at no others."""

    def __init__(self, live: LiveSessions, terms: Terms) -> None:
        self._live = live
        self._terms = terms
        self._speed = Speed()
        self._due_ms = 0  # CLOCK_BOOTTIME
        self._bytes_left: Lowest[str] = Lowest()  # of limited accounts, when they were last looked at
        self._time_ends: Lowest[str] = Lowest()  # CLOCK_BOOTTIME, if their sessions run on
        self._known: tuple[int, object] | None = None  # the sessions and the terms that these two were made for
        self._wall_ahead_ms: int | None = None  # of CLOCK_BOOTTIME, at the last look

    def decide(self, seen: Observation | None, now: Moment) -> dict[bytes, Reason]:
        """(public key, reason) of every session that has to end, what was just read included."""
        if seen is not None:
            self._speed = self._speed.after(seen.total_bytes, now.boot_ms)
        quotas = {account.id: self._measure(account, seen, now) for account in self._doubtful(seen, now)}
        for account_id, left in quotas.items():
            self._note(account_id, left, now)
        self._due_ms = now.boot_ms + self._next_due(now)
        ending = {}
        for key in self._candidates(quotas, now):
            reason = self._reason(self._live.by_key[key], quotas, seen, now)
            if reason is not None:
                ending[key] = reason
        return ending

    def opened(self, session: Session, now: Moment) -> bool:
        """A session has begun: whether the next look is due earlier for it than it was."""
        due = min(LOOK_MS, session.expires_at - now.wall_ms)
        account = self._live.accounts[session.account_id]
        if self._is_limited(account):
            self._note(account.id, self._measure(account, None, now), now)
            due = min(due, self._next_due(now))
        earlier = now.boot_ms + due < self._due_ms
        self._due_ms = min(self._due_ms, now.boot_ms + due)
        return earlier

    def seconds_to_next_look(self, now: Moment) -> float:
        due = [LOOK_MS, self._due_ms - now.boot_ms]
        expiry = self._live.expiries.least()
        if expiry is not None:
            due.append(expiry - now.wall_ms)
        return max(SHORTEST_WAIT_MS, min(due)) / 1000

    # Accounts -----------------------------------------------------------------------------------------

    def _doubtful(self, seen: Observation | None, now: Moment) -> Iterable[Account]:
        """The limited accounts that have used something since they were looked at, or whose time is over."""
        charged, stepped = self._live.charged(), self._stepped(now)
        known = (self._live.loads, self._terms.tiers)
        if known != self._known or stepped:
            self._known, self._bytes_left, self._time_ends = known, Lowest(), Lowest()
            return [account for account in self._live.with_sessions() if self._is_limited(account)]
        ids = {*self._time_ends.upto(now.boot_ms), *self._bytes_left.upto(self._speed.bytes(LOOK_MS))}
        ids |= charged
        if seen is not None:
            ids.update(seen.count.accounts)
        found = (self._live.accounts[account_id] for account_id in ids)
        return [account for account in found if self._is_limited(account)]

    def _stepped(self, now: Moment) -> bool:
        """Whether the wall clock was set: set back, it brings a window again that was over. A millisecond is the
        rounding of two clocks."""
        before, self._wall_ahead_ms = self._wall_ahead_ms, now.wall_ms - now.boot_ms
        return before is None or abs(self._wall_ahead_ms - before) > 1

    def _note(self, account_id: str, left: quota.Quota, now: Moment) -> None:
        """Nothing of one that has no sessions any more."""
        sessions = len(self._live.of_account(account_id))
        ms_left = left.ms_left(sessions)
        self._bytes_left.put(account_id, left.bytes_left if sessions else None)
        self._time_ends.put(account_id, None if ms_left is None else now.boot_ms + ms_left)

    def _next_due(self, now: Moment) -> int:
        """In how many ms some account may have run out, if that is before the next look."""
        due = LOOK_MS
        bytes_left, ends_at = self._bytes_left.least(), self._time_ends.least()
        if bytes_left is not None:
            due = min(due, max(CLOSE_LOOK_MS, self._speed.ms(bytes_left)))
        return due if ends_at is None else min(due, ends_at - now.boot_ms)

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

    # Sessions -----------------------------------------------------------------------------------------

    def _candidates(self, quotas: dict[str, quota.Quota], now: Moment) -> Iterator[bytes]:
        """Those that may have to end; some of them twice."""
        yield from self._live.closing
        yield from self._live.expiries.upto(now.wall_ms)
        for tier, quiet_since in self._live.quiet_since.items():
            timeout_ms = self._terms.tiers[tier].idle_timeout * 1000
            if timeout_ms:
                yield from quiet_since.upto(now.boot_ms - timeout_ms - 1)
        for account_id, left in quotas.items():
            if left.exceeded:
                yield from (session.public_key for session in self._live.of_account(account_id))

    def _reason(
        self, session: Session, quotas: dict[str, quota.Quota], seen: Observation | None, now: Moment
    ) -> Reason | None:
        if session.state is State.CLOSING:
            return session.reason
        key = session.public_key
        after = session if seen is None else seen.count.sessions.get(key, session)
        tier = self._terms.tiers[self._live.accounts[session.account_id].tier]
        reason = termination.decide(after, tier, quotas.get(session.account_id), now)
        if reason is Reason.IDLE and (seen is None or key not in seen.dump.peers):
            # A peer that is away, or that a dump cut short does not show, may have been heard.
            return None
        return reason
