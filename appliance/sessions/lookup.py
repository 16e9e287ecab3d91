"""Looks sessions up for their accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.entities import State
from appliance.domain.errors import SessionNotFound
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from appliance.domain.entities import Account, Session
    from appliance.sessions.ended import Ended
    from appliance.store.database import Store
    from appliance.store.live import LiveSessions


class Lookup:
    """Reads live sessions from memory and all others from the store. Pending ones are not found.

    `ended`: those that the store does not know to have ended yet.
    """

    def __init__(self, *, store: Store, live: LiveSessions, ended: Ended) -> None:
        self._store = store
        self._live = live
        self._ended = ended

    async def find(self, account: Account, session_id: str) -> Session:
        """Returns one of the account's sessions.

        Raises SessionNotFound: for an unknown id and another account's alike. Raises StoreUnavailable.
        """
        session = self._live.by_id(session_id) or self._ended.get(session_id)
        if session is None:
            async with self._store.read() as db:
                session = await rows.by_id(db, session_id)
        if session is None or session.account_id != account.id or session.state is State.PENDING:
            raise SessionNotFound
        return session

    async def listing(self, account: Account, *, live: bool, before: str | None, limit: int) -> list[Session]:
        """Returns up to `limit` of the account's sessions, newest first. Raises StoreUnavailable.

        `live`: only those that have not ended. `before`: only those older than the session of this id.
        """
        ended = self._ended.copy()
        async with self._store.read() as db:
            found = await rows.page(db, rows.Page(account_id=account.id, live=live, before=before, limit=limit))
        return self._as_ended(found, ended)

    async def by_time(
        self, account: Account, *, live: bool, before: tuple[int, str] | None, limit: int
    ) -> list[Session]:
        """Returns up to `limit` of the account's sessions by (created_at, id), the largest first; those below `before`.

        Raises StoreUnavailable.
        """
        ended = self._ended.copy()
        async with self._store.read() as db:
            found = await rows.page_by_time(db, account.id, live=live, before=before, limit=limit)
        return self._as_ended(found, ended)

    def _as_ended(self, found: Iterable[Session], ended: Mapping[str, Session]) -> list[Session]:
        return [ended.get(session.id) or self._ended.get(session.id) or session for session in found]
