"""Caches which account a bearer token belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.store.queries import tokens as rows

if TYPE_CHECKING:
    from appliance.domain.clock import Clock
    from appliance.domain.entities import Account
    from appliance.store.database import Store

MOST_KNOWN = 10_000


class Tokens:
    """Caches valid tokens, so that repeated look-ups do not read the store.

    Call `forget` when another process may have changed tokens or accounts. An invalid token is never cached: it may
    be created at any moment.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[bytes, rows.Holder] = {}  # by hash, the oldest first
        self._forgotten = 0  # number of `forget` calls
        self.watched = True  # whether changes by other processes are watched for; nothing is cached otherwise

    def known(self, token_hash: bytes) -> Account | None:
        """Returns the account of a cached token, without reading the store; None if it is not cached or has expired."""
        known = self._known.get(token_hash)
        if known is None or (known.expires_at is not None and known.expires_at <= self._clock.now().wall_ms):
            return None
        return known.account

    async def account_of(self, token_hash: bytes) -> Account | None:
        """Returns the token's account, or None for an invalid token. Its windows date from when it was cached."""
        known = self.known(token_hash)
        if known is not None:
            return known
        forgotten = self._forgotten
        async with self._store.read() as db:
            holder = await rows.holder_of(db, token_hash, self._clock.now().wall_ms)
        if holder is None:
            return None
        # A holder read before the last `forget` may be outdated.
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
