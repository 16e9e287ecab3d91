"""Holds sessions that have ended, of which the store has the last figures and not yet that their peers are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.entities import Reason
from appliance.sessions import device_ends
from appliance.store.queries import invoices, peers
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiosqlite

    from appliance.domain.entities import Session


class Ended:
    """Keeps ended sessions until a transaction marks them terminated: that of the next batch, which follows at once."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}  # by id

    def __bool__(self) -> bool:
        """Tells whether the store has yet to be told of any."""
        return bool(self._sessions)

    def get(self, session_id: str) -> Session | None:
        """Returns a session as it ended, or None if there is none of this id here."""
        return self._sessions.get(session_id)

    def copy(self) -> Mapping[str, Session]:
        """Returns all as of now, by id: for one who reads the store meanwhile."""
        return dict(self._sessions)

    def add(self, session: Session) -> None:
        """Adds a session that is terminated."""
        self._sessions[session.id] = session

    async def write(self, db: aiosqlite.Connection) -> None:
        """Marks all terminated in the caller's transaction; the caller must call `written` once it is committed."""
        if self._sessions:
            sessions = self._sessions.values()
            await rows.mark_terminated(db, [(s.id, s.reason or Reason.ADMIN, s.terminated_at) for s in sessions])
            await invoices.end(db, [(s.id, s.terminated_at) for s in sessions])
            await device_ends.write(db, [(s, s.reason or Reason.ADMIN) for s in sessions])
            await peers.drop(db, [s.address_offset for s in sessions])

    def written(self) -> None:
        """Notes that the store has them."""
        self._sessions.clear()
