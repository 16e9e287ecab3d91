"""Offers what a client may ask for: to open, close, find and list its account's sessions."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.domain.entities import Reason, State
from appliance.domain.errors import PeerApplyFailed, SessionNotFound
from appliance.sessions.batch_opens import Opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.domain.entities import Account, Session
    from appliance.network.wireguard.client_config import TunnelFacts
    from appliance.sessions.batch_opens import Noted
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

    async def install(self, account: Account, request: SessionRequest, noted: Noted | None = None) -> Opened:
        """Opens a session whose file another exit writes. Raises as `Opening.install` does."""
        return await self._opening.install(account, request, noted)

    def tunnel_of(self, session: Session, *, ipv6: bool) -> TunnelFacts:
        """Returns what the session's file says."""
        return self._opening.tunnel_of(session, ipv6=ipv6)

    def stands(self, session: Session) -> bool:
        """Tells whether a session is not being undone."""
        return not self._ending.is_undone(session.public_key)

    async def take_back(self, account: Account, session_id: str, replaced_id: str | None) -> None:
        """Undoes a session of whose file nothing is known, unless it has ended. `replaced_id`: whose place it took.

        Raises PeerApplyFailed: if it is not undone in time; it will be.
        """
        with suppress(SessionNotFound):
            session = await self._lookup.find(account, session_id)
            if session.state is State.LIVE:
                replaced = None if replaced_id is None else await self._lookup.find(account, replaced_id)
                await self._opening.take_back(account, Opened(session, replaced))
        await self.settled()
        with suppress(SessionNotFound):
            if (await self._lookup.find(account, session_id)).state is not State.TERMINATED:
                raise PeerApplyFailed

    async def settled(self) -> None:
        """Waits until what was given up is undone. Raises PeerApplyFailed: if that takes too long."""
        await self._opening.settled()

    async def close(self, account: Account, session_id: str, reason: Reason = Reason.CLOSED) -> Session:
        """Ends one of the account's sessions and returns it; returns one that has ended already as it is.

        Raises SessionNotFound, or PeerApplyFailed: if the peer could not be removed in time.
        """
        session = await self._lookup.find(account, session_id)
        if session.state is State.TERMINATED:
            return session
        await self._ending.close(session, reason)
        return await self._lookup.find(account, session_id)

    async def find(self, account: Account, session_id: str) -> Session:
        """Returns one of the account's sessions, live or ended. Raises SessionNotFound."""
        return await self._lookup.find(account, session_id)

    async def list(self, account: Account, *, live: bool, before: str | None, limit: int) -> list[Session]:
        """Returns up to `limit` of the account's sessions, newest first; see `Lookup.listing`."""
        return await self._lookup.listing(account, live=live, before=before, limit=limit)

    async def list_by_time(
        self, account: Account, *, live: bool, before: tuple[int, str] | None, limit: int
    ) -> Sequence[Session]:
        """Returns the same in the order that several exits have in common; see `Lookup.by_time`."""
        return await self._lookup.by_time(account, live=live, before=before, limit=limit)
