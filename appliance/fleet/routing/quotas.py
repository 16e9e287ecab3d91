"""Shows quotas to clients of this host's API: a session's as its exit knows them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain.errors import FleetError
from appliance.domain.fleet_use import WindowsUse, summed
from appliance.fleet.accounts.caller import token_of
from appliance.fleet.rpc.facts import ElsewhereSession
from appliance.fleet.rpc.operations import USAGE, UsageOfAccount

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from appliance.domain.entities import Account, Session
    from appliance.domain.quota import Quota
    from appliance.fleet.reports.reported import Reported
    from appliance.fleet.routing.elsewhere import Elsewhere
    from appliance.metering.usage import Quotas


log = logging.getLogger(__name__)


class FleetQuotas:
    """Offers what Quotas does, for the whole fleet. Accounts are Callers. Each method raises StoreUnavailable."""

    def __init__(self, quotas: Quotas, elsewhere: Elsewhere, reported: Reported) -> None:
        self._quotas = quotas
        self._elsewhere = elsewhere
        self._reported = reported

    async def of_each(self, account: Account, listed: Sequence[Session]) -> list[Quota]:
        """Returns the quota that holds for each session; of one whose exit is away, this exit's own."""
        own = await self._quotas.of(account)
        return [each.quota or own if isinstance(each, ElsewhereSession) else own for each in listed]

    async def of_all(self, account: Account) -> Quota:
        """Returns the account's quota, with what it has used on all exits.

        On those that do not answer, or have left the fleet, it is what they have reported last.
        """
        asking = self._elsewhere.ask_all(USAGE, UsageOfAccount(token_of(account)))
        answers, reported = await asyncio.gather(asking, self._reported_use(account))
        known = await self._quotas.of(account)
        own = known.own
        used = {node: WindowsUse(a.bytes_used, a.time_used_ms) for node, a in answers.items() if a is not None}
        used[self._elsewhere.own_id] = WindowsUse(own.bytes_used, own.time_used_ms)
        total = summed(used, reported)
        return replace(
            known,
            bytes_used=max(known.bytes_used, total.total_bytes),
            time_used_ms=max(known.time_used_ms, total.time_ms),
        )

    async def _reported_use(self, account: Account) -> Mapping[str, WindowsUse]:
        try:
            return self._quotas.of_exits(account, await self._reported.windows(account))
        except FleetError as error:
            log.info("no hub tells what %s has used elsewhere: %s", account.id, error)
            return {}
