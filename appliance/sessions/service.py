"""Offers what a client may ask for: to open, close, find and list its account's sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.entities import State

if TYPE_CHECKING:
    from appliance.domain.entities import Account, Session
    from appliance.sessions.ending import Ending
    from appliance.sessions.lookup import Lookup
    from appliance.sessions.opening import NewSession, Opening, SessionRequest


class SessionService:
    """Serves requests for sessions. Each method raises StoreUnavailable: if the store fails."""

    def __init__(self, *, opening: Opening, ending: Ending, lookup: Lookup) -> None:
        self._opening = opening
        self._ending = ending
        self._lookup = lookup

    async def open(self, account: Account, request: SessionRequest) -> NewSession:
        """Opens a session. Raises what `Opening.open` does; what is left of the session then is undone."""
        return await self._opening.open(account, request)

    async def close(self, account: Account, session_id: str) -> Session:
        """Ends one of the account's sessions and returns it; returns one that has ended already as it is.

        Raises SessionNotFound, or PeerApplyFailed: if the peer could not be removed in time.
        """
        session = await self._lookup.find(account, session_id)
        if session.state is State.TERMINATED:
            return session
        await self._ending.close(session)
        return await self._lookup.find(account, session_id)

    async def find(self, account: Account, session_id: str) -> Session:
        """Returns one of the account's sessions, live or ended. Raises SessionNotFound."""
        return await self._lookup.find(account, session_id)

    async def list(self, account: Account, *, live: bool, before: str | None, limit: int) -> list[Session]:
        """Returns up to `limit` of the account's sessions, newest first; see `Lookup.listing`."""
        return await self._lookup.listing(account, live=live, before=before, limit=limit)
