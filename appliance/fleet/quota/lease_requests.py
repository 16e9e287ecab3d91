"""Asks the ledger about accounts' limits, for one exit."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from appliance.domain.errors import NotAnswered
from appliance.fleet.accounts.sync_messages import LedgerRefusal
from appliance.fleet.link.reading import Unreadable, read
from appliance.fleet.link.wire import PREFIX
from appliance.fleet.quota.messages import AllNoted, LeaseTold, ToldAll

if TYPE_CHECKING:
    from appliance.fleet.link.wire import HubLink
    from appliance.fleet.quota.messages import Ask, LeaseAsk

T = TypeVar("T", LeaseTold, AllNoted)

ALL_TOLD_S = 2.0


class LeaseRequests:
    """Sends requests of the exit `node_id`. Each method raises FleetError."""

    def __init__(self, link: HubLink, node_id: str) -> None:
        self._link = link
        self._subject = f"{PREFIX}.led.{node_id}.lease"

    async def lease(self, asked: LeaseAsk, timeout_s: float) -> LeaseTold:
        return await self._request(asked, LeaseTold, timeout_s)

    async def say_all_is_told(self, memory: str) -> bool:
        """Returns whether the ledger's memory is that one still."""
        return (await self._request(ToldAll(memory), AllNoted, ALL_TOLD_S)).known

    async def _request(self, asked: Ask, shape: type[T], timeout_s: float) -> T:
        answer = await self._link.request(self._subject, msgspec.json.encode(asked), timeout_s)
        try:
            found = read(answer, shape | LedgerRefusal)
        except Unreadable as error:
            raise NotAnswered(f"the ledger's answer is not understood: {error}") from error
        if isinstance(found, LedgerRefusal):
            raise NotAnswered(f"the ledger: {found.error}")
        assert isinstance(found, shape)  # noqa: S101 (it was read so)
        return found
