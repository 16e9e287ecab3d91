"""Tells what accounts use on this exit, and takes over when their windows opened for the whole fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain import quota, windows
from appliance.domain.windows import Window, Windows
from appliance.fleet.quota.holder import Own, adopted
from appliance.metering import usage
from appliance.store.queries import accounts as account_rows

if TYPE_CHECKING:
    import asyncio

    from appliance.config.plans import Terms
    from appliance.domain.entities import Account
    from appliance.domain.tiers import TierLimits
    from appliance.fleet.quota.messages import LeaseAsk, LeaseTold
    from appliance.sessions.records import Records


class OwnUse:
    """Reads the exit's memory, and the store for accounts without sessions. `exit_lock`: see `PeerAccess`."""

    def __init__(self, records: Records, terms: Terms, exit_lock: asyncio.Lock) -> None:
        self._records = records
        self._terms = terms
        self._exit_lock = exit_lock
        self._seen: dict[str, Windows] = {}  # by account: as last looked at, with bytes that are not stored yet

    def tier(self, account: Account) -> TierLimits:
        return self._terms.tiers[account.tier]

    def live(self, account_id: str) -> int:
        """Returns how many live sessions the account has here."""
        return self._records.live.number_live(account_id)

    def sessions(self, account_id: str) -> int:
        """Returns how many sessions the account has here, ending ones too."""
        return self._records.live.number_of(account_id)

    def with_sessions(self) -> list[str]:
        """Returns the accounts that have sessions here."""
        return [account.id for account in self._records.live.owners()]

    async def account(self, account_id: str) -> Account | None:
        """Returns the account as last counted; None: it is gone. Raises StoreUnavailable."""
        known = self._records.live.account(account_id)
        if known is not None:
            return known
        async with self._records.store.read() as db:
            return await account_rows.by_id(db, account_id)

    def note_seen(self, account_id: str, used: Windows) -> None:
        """Notes how the windows of an account with sessions stand, with bytes that were seen and are not stored yet."""
        before = self._seen.get(account_id)
        if (
            before is None
            or before.traffic.opened_at != used.traffic.opened_at
            or (used.traffic.used > before.traffic.used)
        ):
            self._seen[account_id] = used

    def forget_seen(self, account_id: str) -> None:
        """Forgets an account that has no sessions: all that they used is stored."""
        self._seen.pop(account_id, None)

    def own(self, account: Account, opening: int) -> Own:
        """Returns what the account does here now. `opening`: how many sessions more are being opened."""
        live = self.live(account.id)
        return Own(account.id, self._now(account), live, live + opening)

    def _now(self, account: Account) -> Windows:
        now, tier = self._records.clock.now(), self.tier(account)
        used = quota.current(account, tier, usage.uncounted(self._records.live, account, tier, now), now.wall_ms)
        seen = self._seen.get(account.id)
        if seen is None:
            return used
        traffic = windows.at(seen.traffic, tier.bytes_window * 1000, now.wall_ms)
        is_newer = used.traffic.opened_at in (None, traffic.opened_at) and traffic.used > used.traffic.used
        return replace(used, traffic=traffic) if is_newer else used

    async def adopt(self, account_id: str, asked: LeaseAsk, told: LeaseTold) -> None:
        """Gives the account the windows that the ledger tells of. Raises StoreUnavailable."""
        async with self._exit_lock:
            account = await self.account(account_id)
            if account is None:
                return
            tier, now, stored = self.tier(account), self._now(account), account.windows
            traffic = adopted(now.traffic, told.traffic, asked.traffic.used, tier.bytes_window * 1000)
            time = adopted(now.time, told.time, asked.time.used, tier.seconds_window * 1000)
            taken = Windows(
                self._stored(stored.traffic, now.traffic, traffic, tier.bytes_window * 1000),
                self._stored(stored.time, now.time, time, tier.seconds_window * 1000),
            )
            if taken != stored:
                await self._put(replace(account, windows=taken))
            if account_id in self._seen:
                self._seen[account_id] = Windows(traffic, time)

    def _stored(self, stored: Window, now: Window, taken: Window, length_ms: int) -> Window:
        """Returns the window that is `taken` once use is counted that `now` has and `stored` does not count yet."""
        if taken == now:
            return stored
        base = windows.at(stored, length_ms, self._records.clock.now().wall_ms)
        return Window(taken.opened_at, max(0, base.used + taken.used - now.used), taken.since)

    async def _put(self, account: Account) -> None:
        live = self._records.live
        async with live.committing(self._records.store) as db:
            await account_rows.put_windows(db, [account])
        if live.number_of(account.id):
            live.apply_count([], {account.id: account})
        elif account.id in self._records.devices.accounts():
            live.know(account)
