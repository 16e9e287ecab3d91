"""Tells the ledger all that this exit has borrowed, whenever its memory of that is a new one."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from appliance.domain.errors import FleetError
from appliance.sessions.stopping import pause

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from appliance.fleet.quota.lease_requests import LeaseRequests
    from appliance.fleet.quota.leasing import Leasing

log = logging.getLogger(__name__)

LOOK_S = 2.0
AT_ONCE, A_SECOND = 16, 200


class Retelling:
    """Follows the name of the ledger's memory: see `SyncAnswer.claims`; "": it is not known."""

    def __init__(
        self, leasing: Leasing, requests: LeaseRequests, memory: Callable[[], Awaitable[str]], look_s: float = LOOK_S
    ) -> None:
        self._leasing = leasing
        self._requests = requests
        self._memory = memory
        self._look_s = look_s
        self._told = self._telling = ""
        self._answered: set[str] = set()  # the accounts that the memory that is being told knows of

    async def run(self) -> None:
        """Tells what is new to it, until it is cancelled."""
        while True:
            try:
                await self.look()
            except FleetError as error:
                log.debug("the ledger was not told what is lent to this exit: %s", error)
            await pause(self._look_s)

    async def look(self) -> None:
        """Tells all to a memory that was not told. Raises FleetError: it is to be done again."""
        name = await self._memory()
        if not name or name == self._told:
            return
        if name != self._telling:
            self._telling, self._answered = name, set()
        left = [each for each in self._leasing.accounts() if each not in self._answered]
        for first in range(0, len(left), AT_ONCE):
            await self._tell(left[first : first + AT_ONCE])
        if not self._answered.issuperset(left):
            return  # those without an answer are told by the next look
        if await self._requests.say_all_is_told(name):
            self._told, self._answered = name, set()
        self._leasing.note_lends()

    async def _tell(self, accounts: Sequence[str]) -> None:
        pace = asyncio.sleep(len(accounts) / A_SECOND)
        *answered, _ = await asyncio.gather(*map(self._leasing.ask_again, accounts), pace)
        self._answered.update(account for account, known in zip(accounts, answered, strict=True) if known)
