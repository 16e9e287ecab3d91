"""Computes an account's current use of its windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain import accounting, quota, windows
from appliance.domain.windows import Use
from appliance.metering import stored_grants as stored
from appliance.metering.lending import GrantSource
from appliance.store.queries import accounts, escrow
from appliance.store.queries import node as node_row
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import aiosqlite

    from appliance.config.plans import Terms
    from appliance.domain.clock import Clock, Moment
    from appliance.domain.entities import Account, Session
    from appliance.domain.quota import Quota
    from appliance.domain.tiers import TierLimits
    from appliance.store.database import Store
    from appliance.store.live import LiveSessions, Running


def in_memory(
    live: LiveSessions, account: Account, tier: TierLimits, now: Moment, lent: quota.Lent | None = None
) -> Quota:
    """Returns the use of an account whose windows are as last committed. `lent`: see `quota.measure`."""
    return quota.measure(account, tier, uncounted(live, account, tier, now), now.wall_ms, lent)


def uncounted(live: LiveSessions, account: Account, tier: TierLimits, now: Moment) -> Sequence[Use]:
    """Returns what an account has used that its windows, as last committed, do not count, from sums.

    Looks at each session only after a reboot or a step of the wall clock, until their time is counted.
    """
    sums = live.running(account.id, now)
    if sums is None or accounting.is_relabelled(live.heartbeat, now):
        return accounting.unspent(live.of_account(account.id), live.heartbeat, now)
    spent = _summed(sums, now)
    stopped = [accounting.labelled(span, now) for span in sums.stopped]
    uses = sorted([*stopped, *(() if spent is None else (spent,))], key=lambda use: use.start_ms)
    time = account.windows.time
    for use in uses:
        time = windows.run_on(time, tier.seconds_window * 1000, use.start_ms, use.end_ms)
    if spent is not None and time.since > spent.start_ms:
        # The window began while they ran: what is before it no longer counts.
        time_ms = live.ran_ms(account.id, now.boot_ms - (now.wall_ms - time.since), now.boot_ms)
        uses[uses.index(spent)] = Use(0, time_ms, time.since, now.wall_ms)
    return uses


def _summed(sums: Running, now: Moment) -> Use | None:
    """Returns what sessions that carry have used since they were counted, from when the first was; None: nothing."""
    if not sums.number or sums.first_ms is None or now.boot_ms <= sums.first_ms:
        return None
    time_ms = sums.number * now.boot_ms - sums.counted_until_ms
    return Use(0, time_ms, now.wall_ms - (now.boot_ms - sums.first_ms), now.wall_ms)


class Quotas:
    """Measures quotas: bytes as last committed, time up to now. `live` is None outside of the server.

    In a fleet they are of all exits: of the others by `lending`, outside of the server by what the store has of that.
    Reads an account and its sessions as of the same moment, because counting moves use from one to the other.
    """

    def __init__(
        self,
        store: Store,
        live: LiveSessions | None,
        terms: Terms,
        clock: Clock,
        lending: GrantSource | None = None,
    ) -> None:
        self._store = store
        self._live = live
        self._terms = terms
        self._clock = clock
        self._lending = lending or GrantSource()

    async def of(self, account: Account) -> Quota:
        """Returns the account's current use. Reads everything but the id of `account` again."""
        known = None if self._live is None else self._live.account(account.id)
        if self._live is not None and known is not None:
            return in_memory(self._live, known, self._terms.tiers[known.tier], self._clock.now(), self._lending.lent)
        if self._live is not None and self._live.in_sync:
            async with self._store.read() as db:
                account = await accounts.by_id(db, account.id) or account
                return self._measure(account, [], self._live.heartbeat, self._lending.lent)
        async with self._store.snapshot() as db:
            return await self.as_of(db, account)

    async def of_each(self, account: Account, listed: Sequence[Session]) -> list[Quota]:
        """Returns the quota that holds for each of the account's sessions: on one exit, the same for all."""
        return [await self.of(account)] * len(listed)

    async def of_all(self, account: Account) -> Quota:
        """Returns the account's use of all exits: of this one."""
        return await self.of(account)

    async def as_of(self, db: aiosqlite.Connection, account: Account) -> Quota:
        """Returns the same as a transaction sees it, all of it read from the store."""
        account = await accounts.by_id(db, account.id) or account
        sessions = await rows.unfinished_of(db, account.id)
        lent = self._lending.lent or stored.lent_by(await escrow.of_account(db, account.id))
        return self._measure(account, sessions, (await node_row.read(db)).heartbeat, lent)

    def _measure(
        self, account: Account, sessions: Iterable[Session], heartbeat: Moment, lent: quota.Lent | None
    ) -> Quota:
        now = self._clock.now()
        uses = accounting.unspent(sessions, heartbeat, now)
        return quota.measure(account, self._terms.tiers[account.tier], uses, now.wall_ms, lent)
