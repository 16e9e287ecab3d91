"""Keeps room for a session while it is being opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from appliance.domain.entities import Account


class Asks(Protocol):
    """Is what `Leasing` does for openings."""

    def begin_opening(self, account_id: str) -> None: ...

    def end_opening(self, account_id: str, replacing: int) -> None: ...

    def replace_elsewhere(self, account_id: str) -> None: ...

    async def ask_for(self, account: Account) -> None: ...


class OpeningPlace:
    """Implements SessionPlace: counts as one session more that the account is to have here."""

    def __init__(self, leasing: Asks, account: Account) -> None:
        self._leasing = leasing
        self._account = account
        self._replacing = 0

    def __enter__(self) -> OpeningPlace:
        self._leasing.begin_opening(self._account.id)
        return self

    def __exit__(self, *_: object) -> None:
        self._leasing.end_opening(self._account.id, self._replacing)

    async def ask(self) -> None:
        """Acts as SessionPlace says."""
        await self._leasing.ask_for(self._account)

    def replaces(self) -> None:
        """Acts as SessionPlace says."""
        self._replacing += 1
        self._leasing.replace_elsewhere(self._account.id)
