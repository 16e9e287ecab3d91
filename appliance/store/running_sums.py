"""Sums what runs of each account's sessions, so that its use is known without a look at each of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from appliance.domain.entities import Session


class Running(Struct, gc=False):
    """Sums an account's sessions: how many, and up to when they were counted (ms of CLOCK_BOOTTIME): all added, and the
    first of them; None: not known."""

    number: int = 0
    counted_until_ms: int = 0
    first_ms: int | None = None


class RunningSums:
    """Keeps the sums by account. They are told of each session that comes, goes or is counted."""

    def __init__(self, sessions: Iterable[Session] = ()) -> None:
        self._by_account: dict[str, Running] = {}
        self._boots: Counter[str] = Counter()
        for session in sessions:
            self.add(session)

    def add(self, session: Session) -> None:
        """Adds a session, as it was last counted."""
        sums = self._by_account.get(session.account_id)
        if sums is None:
            sums = self._by_account[session.account_id] = Running(first_ms=session.counted_until_ms)
        elif sums.first_ms is not None:
            sums.first_ms = min(sums.first_ms, session.counted_until_ms)
        sums.number += 1
        sums.counted_until_ms += session.counted_until_ms
        self._boots[session.counted_boot_id] += 1

    def remove(self, session: Session) -> None:
        """Removes a session, as it was when it was added."""
        sums = self._by_account[session.account_id]
        sums.number -= 1
        sums.counted_until_ms -= session.counted_until_ms
        if not sums.number:
            del self._by_account[session.account_id]
        elif session.counted_until_ms == sums.first_ms:
            sums.first_ms = None
        self._boots[session.counted_boot_id] -= 1
        if not self._boots[session.counted_boot_id]:
            del self._boots[session.counted_boot_id]

    def of(self, account_id: str, boot_id: str, counted_until_ms: Callable[[], Iterable[int]]) -> Running | None:
        """Returns the account's sums; None if some sessions were counted in another boot than this.

        `counted_until_ms`: of each of its sessions, for when the first of them has gone or was counted.
        """
        if self._boots.keys() - {boot_id}:
            return None
        sums = self._by_account.get(account_id)
        if sums is None:
            return Running()
        if sums.first_ms is None:
            sums.first_ms = min(counted_until_ms())
        return sums
