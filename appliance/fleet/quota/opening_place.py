"""Keeps room for a session while it is being opened."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from appliance.domain.entities import Account

PATIENCE_S = 1.5  # of an opening: then this exit's share counts
# An exit gives room back by its next look at sessions (250 ms), and one message later the ledger has it.
AGAIN_S = 0.15, 0.45


class Asks(Protocol):
    """Is what `Leasing` does for openings. `denied`: how many got no room."""

    denied: int

    def begin_opening(self, account_id: str) -> None: ...

    def end_opening(self, account_id: str, replacing: int) -> None: ...

    def replace_elsewhere(self, account_id: str) -> None: ...

    async def ask_for(self, account: Account) -> bool: ...

    def may_come_free(self, account: Account) -> bool: ...


class OpeningPlace:
    """Implements SessionPlace: counts as one session more that the account is to have here."""

    def __init__(self, leasing: Asks, account: Account) -> None:
        self._leasing = leasing
        self._account = account
        self._replacing = 0
        self._denied = False
        self._until_s = 0.0  # by the loop's time

    def __enter__(self) -> OpeningPlace:
        self._leasing.begin_opening(self._account.id)
        return self

    def __exit__(self, *_: object) -> None:
        self._leasing.end_opening(self._account.id, self._replacing)
        if self._denied and not self._replacing:
            self._leasing.denied += 1

    async def ask(self) -> None:
        """Acts as SessionPlace says."""
        self._until_s = asyncio.get_running_loop().time() + PATIENCE_S
        self._denied = await self._leasing.ask_for(self._account)

    async def ask_again(self) -> None:
        """Acts as SessionPlace says. An answer that does not come in time changes nothing."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._until_s):
                for pause_s in AGAIN_S:
                    if not (self._denied and self._leasing.may_come_free(self._account)):
                        return
                    await asyncio.sleep(pause_s)
                    self._denied = await self._leasing.ask_for(self._account)

    def replaces(self) -> None:
        """Acts as SessionPlace says."""
        self._replacing += 1
        self._leasing.replace_elsewhere(self._account.id)
