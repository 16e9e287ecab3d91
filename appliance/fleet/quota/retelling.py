"""Tells the ledger all that this exit has borrowed, whenever its memory of that is a new one."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from appliance.domain.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from appliance.fleet.quota.lease_requests import LeaseRequests
    from appliance.fleet.quota.leasing import Leasing

log = logging.getLogger(__name__)

LOOK_S = 2.0
A_SECOND = 200


class Retelling:
    """Follows the name of the ledger's memory: see `SyncAnswer.claims`; "": it is not known."""

    def __init__(
        self, leasing: Leasing, requests: LeaseRequests, memory: Callable[[], Awaitable[str]], look_s: float = LOOK_S
    ) -> None:
        self._leasing = leasing
        self._requests = requests
        self._memory = memory
        self._look_s = look_s
        self._told = ""

    async def run(self) -> None:
        """Tells what is new to it, until it is cancelled."""
        while True:
            try:
                await self.look()
            except FleetError as error:
                log.debug("the ledger was not told what is lent to this exit: %s", error)
            await asyncio.sleep(self._look_s)

    async def look(self) -> None:
        """Tells all to a memory that was not told. Raises FleetError: it is to be done again."""
        name = await self._memory()
        if not name or name == self._told:
            return
        for account_id in self._leasing.accounts():
            if not await self._leasing.ask_again(account_id):
                return
            await asyncio.sleep(1 / A_SECOND)
        if await self._requests.say_all_is_told(name):
            self._told = name
        self._leasing.note_lends()
