"""Whose a bearer token is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.store.queries import tokens as rows

if TYPE_CHECKING:
    from appliance.domain.clock import Clock
    from appliance.domain.entities import Account
    from appliance.store.database import Store

MOST_KNOWN = 10_000


class Tokens:
    """Tokens that count are remembered, so that asking again asks nothing of the store.

    Whoever finds that another process may have changed tokens or accounts calls `forget`. A token that does not count
    is never remembered: it may be made at any moment.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[bytes, rows.Holder] = {}  # by hash, the oldest first
        self._forgotten = 0  # how often
        self.watched = True  # whether somebody would notice that they do not count any more

    def known(self, token_hash: bytes) -> Account | None:
        """As `account_of`, where the token is remembered; the store is not asked."""
        known = self._known.get(token_hash)
        if known is None or (known.expires_at is not None and known.expires_at <= self._clock.now().wall_ms):
            return None
        return known.account

    async def account_of(self, token_hash: bytes) -> Account | None:
        """The account, its windows as they were when the token was first seen. None for one that does not count."""
        known = self.known(token_hash)
        if known is not None:
            return known
        forgotten = self._forgotten
        async with self._store.read() as db:
            holder = await rows.holder_of(db, token_hash, self._clock.now().wall_ms)
        if holder is None:
            return None
        # Read before the last `forget`, it may be what was to be forgotten.
        if self.watched and forgotten == self._forgotten:
            self._remember(token_hash, holder)
        return holder.account

    def forget(self) -> None:
        self._known.clear()
        self._forgotten += 1

    def _remember(self, token_hash: bytes, holder: rows.Holder) -> None:
        if len(self._known) >= MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[token_hash] = holder
