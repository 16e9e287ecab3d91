"""Shows quotas to clients of this host's API: a session's as its exit knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.fleet.accounts.caller import token_of
from appliance.fleet.rpc.facts import ElsewhereSession
from appliance.fleet.rpc.operations import USAGE, UsageOfAccount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.domain.entities import Account, Session
    from appliance.domain.quota import Quota
    from appliance.fleet.routing.elsewhere import Elsewhere
    from appliance.metering.usage import Quotas


class FleetQuotas:
    """Offers what Quotas does, for the whole fleet. Accounts are Callers. Each method raises StoreUnavailable."""

    def __init__(self, quotas: Quotas, elsewhere: Elsewhere) -> None:
        self._quotas = quotas
        self._elsewhere = elsewhere

    async def of_each(self, account: Account, listed: Sequence[Session]) -> list[Quota]:
        """Returns the quota that holds for each session; of one whose exit is away, this exit's own."""
        own = await self._quotas.of(account)
        return [each.quota or own if isinstance(each, ElsewhereSession) else own for each in listed]

    async def of_all(self, account: Account) -> Quota:
        """Returns the account's quota, with what it has used on all exits: on those that do not answer as they told the
        ledger last, in a window that is open here too.
        """
        answers = await self._elsewhere.ask_all(USAGE, UsageOfAccount(token_of(account)))
        others = [answer for answer in answers.values() if answer is not None]
        known = await self._quotas.of(account)
        own = known.own
        return replace(
            known,
            bytes_used=max(known.bytes_used, own.bytes_used + sum(each.bytes_used for each in others)),
            time_used_ms=max(known.time_used_ms, own.time_used_ms + sum(each.time_used_ms for each in others)),
        )
