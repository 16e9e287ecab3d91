"""Opens sessions on this exit, for its own API and for other exits': claims the key in the fleet first."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from appliance.domain.errors import FleetError
from appliance.fleet.operations import EndSession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any, TypeVar

    from appliance.domain.entities import Account
    from appliance.fleet.claiming import Claims, Whereabouts
    from appliance.fleet.intents import Intents
    from appliance.sessions.batch_opens import Noted, Opened
    from appliance.sessions.opening import SessionRequest
    from appliance.sessions.service import SessionService

    T = TypeVar("T")

log = logging.getLogger(__name__)

PATIENCE_S = 1.5  # then the exit goes on alone


class KeyClaims:
    """Claims keys around what makes something of them. Where the ledger does not answer, this exit's own rules hold."""

    def __init__(self, claims: Claims, intents: Intents, own_id: str) -> None:
        self._claims = claims
        self._intents = intents
        self._own_id = own_id
        self._later: set[asyncio.Task[None]] = set()

    async def around(
        self, account: Account, public_key: bytes, op: str, make: Callable[[], Awaitable[T]], *, device: bool
    ) -> T:
        """Returns what `make` makes with the key. If it fails, the claim is given up.

        A session that has the key on another exit is ended there once `make` is done. Raises what the ledger refuses
        with: KeyInUse or InvalidRequest.
        """
        elsewhere = await self._claim(account, public_key, op, device=device)
        try:
            made = await make()
        except BaseException:
            # Also one that was not answered: it may have been made.
            self.release_later(public_key, op)
            raise
        if elsewhere is not None and elsewhere.node_id != self._own_id:
            await self._intents.end(elsewhere.node_id, EndSession(account.id, elsewhere.session_id, replaced=True))
        return made

    async def _claim(self, account: Account, public_key: bytes, op: str, *, device: bool) -> Whereabouts | None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._claims.claim_key(public_key, account.id, op, device=device)
        except (FleetError, TimeoutError) as error:
            log.info("a key was not claimed, as the ledger has not answered: %s", error)
            return None

    def settle(self, public_key: bytes, op: str, made_id: str) -> None:
        """Notes for what a key was claimed; the caller does not wait."""
        self._begin(self._settled(public_key, op, made_id))

    def release_later(self, public_key: bytes, op: str) -> None:
        """Gives up a claim; the caller does not wait."""
        self._begin(self._released(public_key, op))

    async def _settled(self, public_key: bytes, op: str, made_id: str) -> None:
        try:
            await self._claims.settle_key(public_key, op, made_id)
        except FleetError as error:
            log.info("the ledger was not told of a session: %s", error)

    async def _released(self, public_key: bytes, op: str) -> None:
        try:
            await self._claims.release_key(public_key, op)
        except FleetError as error:
            log.info("a claim was not given up: %s", error)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def settled(self) -> None:
        """Waits until the ledger was told of what has come of claims."""
        while self._later:
            await asyncio.wait(self._later)


class ClaimedOpening:
    """Opens sessions here whose keys are claimed."""

    def __init__(self, sessions: SessionService, claims: KeyClaims) -> None:
        self._sessions = sessions
        self._claims = claims

    async def open(self, account: Account, request: SessionRequest, op: str, noted: Noted | None = None) -> Opened:
        """Opens a session for the public key of the request. Raises as `SessionService.install` and KeyClaims do."""
        key = request.public_key or b""
        opened = await self._claims.around(
            account, key, op, lambda: self._sessions.install(account, request, noted), device=False
        )
        self._claims.settle(key, op, opened.session.id)
        return opened

    async def take_back(
        self, account: Account, session_id: str, replaced_id: str | None, public_key: bytes, op: str
    ) -> None:
        """Undoes a session that was opened here, and its claim. Raises PeerApplyFailed: it is not undone in time."""
        await self._sessions.take_back(account, session_id, replaced_id)
        if replaced_id is None:
            self._claims.release_later(public_key, op)
        else:
            self._claims.settle(public_key, op, replaced_id)
