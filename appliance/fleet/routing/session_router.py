"""Serves this host's API for the sessions of all exits: asks the one that has a session, or is to have it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.domain.entities import State
from appliance.domain.errors import FleetError, NotAnswered, PeerApplyFailed, SessionNotFound, StoreUnavailable
from appliance.fleet.accounts.caller import token_of
from appliance.fleet.routing.elsewhere import LIST_S, ONE_S
from appliance.fleet.rpc.operations import (
    CLOSE,
    LIST,
    OPEN,
    STATUS,
    EndSession,
    ListOfAccount,
    OneOfAccount,
    OpenSession,
)
from appliance.network.wireguard import keys
from appliance.sessions.opening import NewSession

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.domain.entities import Account, Session
    from appliance.fleet.owner.claimed_opening import ClaimedOpening
    from appliance.fleet.reports.reported import Folded, Reported
    from appliance.fleet.routing.elsewhere import Elsewhere
    from appliance.fleet.rpc.operations import Place
    from appliance.network.wireguard.client_config import TunnelFacts
    from appliance.sessions.opening import SessionRequest
    from appliance.sessions.service import SessionService

log = logging.getLogger(__name__)


class SessionRouter:
    """Offers what SessionService does, for the sessions of the whole fleet. Accounts are Callers, with their tokens.

    Each method raises StoreUnavailable: if the store of the exit that is asked fails.
    """

    def __init__(
        self, *, sessions: SessionService, opening: ClaimedOpening, elsewhere: Elsewhere, reported: Reported
    ) -> None:
        self._sessions = sessions
        self._opening = opening
        self._elsewhere = elsewhere
        self._reports = reported

    async def open(self, account: Account, request: SessionRequest) -> NewSession:
        """Opens a session on an exit of the region, whose private key stays here. Raises what that exit refuses with.

        Raises NoActiveNodes or NoActiveNodeInRegion: of the fleet. Raises PeerApplyFailed: also if no exit has answered
        in time; what one may have made then is undone.
        """
        private_key, public_key = keys.client_pair(request.public_key)

        async def here(op: str) -> tuple[Session, TunnelFacts]:
            opened = await self._opening.open(account, replace(request, public_key=public_key), op)
            return opened.session, self._sessions.tunnel_of(opened.session, ipv6=request.ipv6)

        async def there(node_id: str, op: str, timeout_s: float) -> tuple[Session, TunnelFacts]:
            asked = OpenSession(op, token_of(account), request.region, public_key, request.ipv6)
            answer = await self._elsewhere.exits.ask(node_id, OPEN, asked, timeout_s, request.region)
            try:
                return answer.session.session(account), answer.tunnel.facts()
            except ValueError as error:
                raise NotAnswered(f"{node_id} has answered what no file can say: {error}") from error

        session, tunnel = await self._elsewhere.placing.place(request.region, here, there)
        pair = None if private_key is None else (private_key, public_key)
        return NewSession(session, tunnel.file(pair, request.dns))

    async def find(self, account: Account, session_id: str) -> Session:
        """Returns one of the account's sessions: of an exit that is away, as it was last reported.

        Raises SessionNotFound. Raises PeerApplyFailed: neither its exit nor a hub has answered.
        """
        owner = self._elsewhere.owner_of(session_id)
        if owner is None or owner == self._elsewhere.own_id:
            return await self._find_here(account, session_id, may_be_elsewhere=owner is None)
        found = await self._find_there(account, session_id, owner)
        return (await self._folded(account, session_id)).session if found is None else found

    async def _find_here(self, account: Account, session_id: str, *, may_be_elsewhere: bool) -> Session:
        try:
            return await self._sessions.find(account, session_id)
        except SessionNotFound:
            if not may_be_elsewhere:
                raise
        folded = await self._folded(account, session_id, lost=SessionNotFound)
        found = None
        if folded.node_id != self._elsewhere.own_id:
            found = await self._find_there(account, session_id, folded.node_id)
        return folded.session if found is None else found

    async def _find_there(self, account: Account, session_id: str, node_id: str) -> Session | None:
        """Returns what its exit says; None: it does not answer. Raises SessionNotFound."""
        if not self._elsewhere.is_there(node_id):
            return None
        asked = OneOfAccount(token_of(account), session_id)
        try:
            return (await self._elsewhere.exits.ask(node_id, STATUS, asked, ONE_S)).session(account)
        except SessionNotFound:
            return await self._sessions.find(account, session_id)  # older than the fleet, with a mark by chance
        except (FleetError, StoreUnavailable) as error:
            log.info("%s has not shown a session: %s", node_id, error)
            return None

    async def _folded(
        self, account: Account, session_id: str, lost: type[SessionNotFound | PeerApplyFailed] = PeerApplyFailed
    ) -> Folded:
        """Returns a session as it was reported. Raises SessionNotFound: it is another account's; `lost`: if no hub
        answers, or none was told of it: its exit may be about to."""
        try:
            async with asyncio.timeout(ONE_S):
                folded = await self._reports.session(account, session_id)
        except (FleetError, StoreUnavailable, TimeoutError) as error:
            log.info("no hub has shown a session: %s", error)
            raise lost from error
        if folded is None:
            raise lost
        return folded

    async def close(self, account: Account, session_id: str) -> Session:
        """Ends one of the account's sessions, and returns it.

        Raises SessionNotFound. Raises PeerApplyFailed: its peer is still there; of an exit that is away it is removed
        once that is back.
        """
        owner = self._elsewhere.owner_of(session_id)
        if owner is None:
            try:
                return await self._sessions.close(account, session_id)
            except SessionNotFound:
                owner = (await self._folded(account, session_id, lost=SessionNotFound)).node_id
        if owner == self._elsewhere.own_id:
            return await self._sessions.close(account, session_id)
        return await self._close_there(account, session_id, owner)

    async def _close_there(self, account: Account, session_id: str, node_id: str) -> Session:
        if self._elsewhere.is_there(node_id):
            asked = OneOfAccount(token_of(account), session_id)
            try:
                return (await self._elsewhere.exits.ask(node_id, CLOSE, asked, ONE_S)).session(account)
            except SessionNotFound:
                return await self._sessions.close(account, session_id)  # as in _find_there
            except FleetError as error:
                log.info("%s has not ended a session: %s", node_id, error)
        try:
            folded = (await self._folded(account, session_id)).session
        except PeerApplyFailed:
            folded = None
        if folded is not None and folded.state is State.TERMINATED:
            return folded
        await self._elsewhere.intents.end(node_id, EndSession(account.id, session_id))
        raise PeerApplyFailed

    async def list(self, account: Account, *, live: bool, before: str | None, limit: int) -> list[Session]:
        """Returns up to `limit` of the account's sessions on all exits, the largest (created_at, id) first.

        Those of exits that do not answer in time are as they were last reported, if a hub tells.
        """
        place: Place | None = None
        if before is not None:
            place = (await self.find(account, before)).created_at, before
        asked = ListOfAccount(token_of(account), place, limit, live)
        answers = await self._elsewhere.ask_all(LIST, asked)
        found = {each.id: each for each in await self._reported(account, answers, asked)}
        for node_id, answer in answers.items():
            told = () if answer is None else answer.sessions
            found |= {each.id: each.session(account) for each in told if self._elsewhere.may_tell(node_id, each.id)}
        own = await self._sessions.list_by_time(account, live=live, before=place, limit=limit)
        found |= {each.id: each for each in own}
        return sorted(found.values(), key=lambda each: (each.created_at, each.id), reverse=True)[:limit]

    async def _reported(
        self, account: Account, answers: Mapping[str, object], asked: ListOfAccount
    ) -> tuple[Session, ...]:
        away = [node for node, answer in answers.items() if answer is None]
        page = self._reports.page(account, away, live=asked.live, before=asked.before, limit=asked.limit)
        try:
            async with asyncio.timeout(LIST_S):
                return tuple(await page)
        except (FleetError, StoreUnavailable, TimeoutError) as error:
            log.info("no hub has listed sessions: %s", error)
            return ()
