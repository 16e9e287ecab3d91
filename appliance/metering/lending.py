"""Passes on what the exits of a fleet lend each other of accounts' limits. A single exit has all of them to itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from appliance.domain.entities import Account
    from appliance.domain.quota import Lent


class SessionPlace(Protocol):
    """Is room for one more session of an account while it is being opened; given up at its end."""

    async def ask(self) -> None:
        """Asks the ledger for it. Does not raise: where there is no answer in time, this exit's share counts."""
        ...

    async def ask_again(self) -> None:
        """Asks once more where there was no room: sessions that have ended elsewhere make some a moment later."""
        ...

    def replaces(self) -> None:
        """Notes that the session takes the place of one on another exit, which ends."""
        ...

    def __enter__(self) -> SessionPlace: ...

    def __exit__(self, *_: object) -> None: ...


class Grants(Protocol):
    """Lends this exit its part of accounts' limits."""

    @property
    def lent(self) -> Lent: ...

    def place(self, account: Account) -> SessionPlace: ...

    def turned_over(self, account_ids: set[str]) -> None:
        """Takes note that sessions of these accounts have begun or ended."""
        ...

    def note_held(self, account_id: str, *, held: bool) -> None:
        """Takes note that devices of the account are held until more is lent, or no more."""
        ...


class GrantSource:
    """Holds who lends, while the host is in a fleet, and the accounts of which something else is lent since.

    `lent`: what `quota.measure` asks; None: the limits are this exit's own. `is_urgent`: sessions may have to end.
    """

    def __init__(self) -> None:
        self.grants: Grants | None = None
        self.lent: Lent | None = None
        self.is_urgent = False
        self._limits_changed: set[str] = set()
        self._holds_changed: set[str] = set()

    def enter(self, grants: Grants) -> None:
        """Has limits hold over all exits from here on."""
        self.grants, self.lent = grants, grants.lent

    def leave(self) -> None:
        """Has limits be this exit's own again."""
        self.grants = self.lent = None

    def changed(self, account_id: str, *, soon: bool = False) -> None:
        """Has the account's sessions and devices looked at once more. `soon`: at once, not by the next look."""
        self.is_urgent = self.is_urgent or soon
        self._limits_changed.add(account_id)
        self._holds_changed.add(account_id)

    def take_limits_changed(self) -> set[str]:
        """Returns the accounts whose sessions are to be looked at, once."""
        changed, self._limits_changed, self.is_urgent = self._limits_changed, set(), False
        return changed

    def take_holds_changed(self) -> set[str]:
        """Returns the accounts whose devices are to be looked at, once."""
        changed, self._holds_changed = self._holds_changed, set()
        return changed
