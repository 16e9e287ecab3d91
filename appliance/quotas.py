"""What an account has used up of its windows, asked at any moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance import accounting
from appliance.policy import quota
from appliance.store import accounts
from appliance.store import sessions as rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.clock import Clock
    from appliance.config import TierSettings
    from appliance.entities import Account
    from appliance.policy.quota import Quota
    from appliance.store.connection import Store


class Quotas:
    """Bytes are those last committed; time is that of this moment."""

    def __init__(self, store: Store, tiers: Mapping[str, TierSettings], clock: Clock) -> None:
        self._store = store
        self._tiers = tiers
        self._clock = clock

    async def of(self, account: Account) -> Quota:
        """The account's use now; only its id is taken from `account`, the rest is read again."""
        async with self._store.read() as db:
            account = await accounts.by_id(db, account.id) or account
            sessions = await rows.unfinished_of(db, account.id)
        now = self._clock.now()
        uses = [accounting.use(accounting.running(s, now), now) for s in sessions]
        return quota.measure(account, self._tiers[account.tier], uses, now.wall_ms)
