"""Rows of requests for sessions that failed, until the store lets go of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.store.queries import invoices
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.sessions.address_quarantine import RetiredAddresses
    from appliance.store.database import Store
    from appliance.store.live import LiveSessions


class Leftovers:
    """`check_soon` asks for the exit to be compared with the store before the next tick is due."""

    def __init__(
        self, store: Store, live: LiveSessions, retired: RetiredAddresses, check_soon: Callable[[], None]
    ) -> None:
        self._store = store
        self._live = live
        self._retired = retired
        self._check_soon = check_soon
        self._offsets: dict[str, int | None] = {}

    def add(self, session_id: str, offset: int | None) -> None:
        """`offset`: the address that goes with the row; None where it is another session's."""
        self._offsets[session_id] = offset

    def offsets(self) -> set[int]:
        """The addresses that they hold."""
        return {offset for offset in self._offsets.values() if offset is not None}

    async def clear(self) -> None:
        """Raises StoreUnavailable; what is left then is there for the next time.

        A row may be live: the commit that said it failed may have been made. Its client was told that it failed.
        """
        leftovers = dict(self._offsets)
        if not leftovers:
            return
        async with self._live.committing(self._store) as db:
            await rows.take_back(db, leftovers)
            await invoices.take_back(db, leftovers)
        if any(self._live.session(session_id) is not None for session_id in leftovers):
            # Memory was read from the store while such a row was live.
            self._live.stale = True
            self._check_soon()
        for session_id, offset in leftovers.items():
            # Another request may have cleared it while this one waited for the store.
            if session_id in self._offsets:
                del self._offsets[session_id]
                if offset is not None:
                    self._retired.add(offset)
