"""Rolls back rows of failed session requests; retries until the store accepts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.store.queries import invoices
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.sessions.address_quarantine import AddressQuarantine
    from appliance.store.database import Store
    from appliance.store.live import LiveSessions


class Rollback:
    """Holds the failed requests whose rows may still be in the store.

    `check_soon` asks for the exit to be compared with the store before the next tick is due.
    """

    def __init__(
        self, store: Store, live: LiveSessions, quarantine: AddressQuarantine, check_soon: Callable[[], None]
    ) -> None:
        self._store = store
        self._live = live
        self._quarantine = quarantine
        self._check_soon = check_soon
        self._offsets: dict[str, int | None] = {}  # by session id

    def add(self, session_id: str, offset: int | None) -> None:
        """Adds a failed request. `offset` is the address that its row holds; None: it is another session's."""
        self._offsets[session_id] = offset

    def offsets(self) -> set[int]:
        """Returns the addresses that the rows hold."""
        return {offset for offset in self._offsets.values() if offset is not None}

    async def run(self) -> None:
        """Deletes the rows and puts their addresses into quarantine. Raises StoreUnavailable; the next call retries.

        A row may be live, if its commit was made but reported as failed. Its client was told that it failed.
        """
        failed = dict(self._offsets)
        if not failed:
            return
        async with self._live.committing(self._store) as db:
            await rows.take_back(db, failed)
            await invoices.take_back(db, failed)
        if any(self._live.by_id(session_id) is not None for session_id in failed):
            # Memory was read from the store while such a row was live.
            self._live.mark_stale()
            self._check_soon()
        for session_id, offset in failed.items():
            # Another request may have rolled it back while this one waited for the store.
            if session_id in self._offsets:
                del self._offsets[session_id]
                if offset is not None:
                    self._quarantine.add(offset)
