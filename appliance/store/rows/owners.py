"""Keeps accounts by number, each with its sessions in a list that runs through their rows, and with their sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.store.rows.owner import Owner
from appliance.store.rows.row_lists import RowLists
from appliance.store.rows.session_row import LINKS_AT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from appliance.domain.entities import Account
    from appliance.store.rows.row_memory import RowMemory


class Owners:
    """Keeps accounts, also when they have no session any more. The lists are in `memory`. `by_number`: all."""

    def __init__(self, memory: RowMemory, accounts: Iterable[Account]) -> None:
        self._lists = RowLists(memory, LINKS_AT)
        self.by_number: list[Owner] = []
        self._by_id: dict[str, Owner] = {}
        for account in accounts:
            self.add(account)

    def __iter__(self) -> Iterator[Owner]:
        """Yields the owners of sessions."""
        return (owner for owner in self.by_number if owner.sessions)

    def of(self, account_id: str) -> Owner:
        """Returns the account with this id. Raises KeyError if it is not known."""
        return self._by_id[account_id]

    def get(self, account_id: str) -> Owner | None:
        """Returns the account with this id if it has sessions."""
        owner = self._by_id.get(account_id)
        return None if owner is None or not owner.sessions else owner

    def add(self, account: Account) -> None:
        """Adds an account; if it has sessions, it stays as it is known."""
        owner = self._by_id.get(account.id)
        if owner is None:
            self._by_id[account.id] = owner = Owner(account, len(self.by_number))
            self.by_number.append(owner)
        elif not owner.sessions:
            self.replace(owner, account)

    def replace(self, owner: Owner, account: Account) -> None:
        """Replaces an account as it is known; the caller orders its sessions anew if its tier is another."""
        owner.account = account

    # Lists --------------------------------------------------------------------------------------------

    def rows(self, owner: Owner) -> list[int]:
        """Returns the rows of the account's sessions."""
        return self._lists.rows(owner.first)

    def link(self, owner: Owner, row: int) -> None:
        """Puts a row at the head of the account's list."""
        owner.first = self._lists.put(owner.first, row)

    def unlink(self, owner: Owner, row: int) -> None:
        """Takes a row out of the account's list."""
        owner.first = self._lists.remove(owner.first, row)
