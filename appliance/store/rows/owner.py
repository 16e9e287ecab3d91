"""Sums an account's sessions, so that its use is known without a look at each of them."""

from __future__ import annotations

from msgspec import Struct

from appliance.domain.entities import Account  # noqa: TC001 (msgspec reads the annotation)
from appliance.domain.tiers import Tier
from appliance.store.rows.window_mark import WindowMark  # noqa: TC001 (likewise)

TIERS = tuple(Tier)


class Owner(Struct, gc=False):
    """Sums an account's sessions: how many, how many of them close, how many carry, and up to when these were counted
    (ms of CLOCK_BOOTTIME): all added, and the first of them; None: not known. `mark`: the same from an instant on,
    which was asked for last. `first`: 1 + the row of one of all sessions."""

    account: Account
    number: int
    first: int = 0
    sessions: int = 0
    closing: int = 0
    carrying: int = 0
    counted_until_ms: int = 0
    first_ms: int | None = None
    mark: WindowMark | None = None

    @property
    def order(self) -> int:
        """Returns the position of the account's tier."""
        return TIERS.index(self.account.tier)

    def add(self, counted_until_ms: int) -> None:
        """Adds a session that carries, as it was last counted."""
        if not self.carrying or (self.first_ms is not None and counted_until_ms < self.first_ms):
            self.first_ms = counted_until_ms
        self.carrying += 1
        self.counted_until_ms += counted_until_ms
        if self.mark is not None:
            self.mark.add(counted_until_ms)

    def recount(self, before_ms: int, counted_until_ms: int) -> None:
        """Counts one of those that carry anew."""
        self.counted_until_ms += counted_until_ms - before_ms
        if before_ms == self.first_ms:
            self.first_ms = None
        elif self.first_ms is not None and counted_until_ms < self.first_ms:
            self.first_ms = counted_until_ms
        if self.mark is not None:
            self.mark.remove(before_ms)
            self.mark.add(counted_until_ms)

    def remove(self, counted_until_ms: int) -> None:
        """Removes one that carries, as it was when it was added."""
        self.carrying -= 1
        self.counted_until_ms -= counted_until_ms
        if counted_until_ms == self.first_ms:
            self.first_ms = None
        if self.mark is not None:
            self.mark.remove(counted_until_ms)
