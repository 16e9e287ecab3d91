"""Opens sessions on this exit, for its own API and for other exits': claims the key in the fleet first."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from appliance.domain.entities import Reason
from appliance.domain.errors import ApplianceError, FleetError
from appliance.fleet.rpc.operations import EndSession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any, TypeVar

    from appliance.domain.entities import Account
    from appliance.fleet.claims.claiming import Claims, Whereabouts
    from appliance.fleet.rpc.intents import Intents
    from appliance.metering.lending import GrantSource, SessionPlace
    from appliance.sessions.batch_opens import Noted, Opened
    from appliance.sessions.opening import SessionRequest
    from appliance.sessions.service import SessionService

    T = TypeVar("T")
    Lost = Callable[[str], Awaitable[None]]

log = logging.getLogger(__name__)

PATIENCE_S = 1.5  # then the exit goes on alone


@dataclass(frozen=True, slots=True)
class KeyWish:
    """Describes a claim of a key: for whom, by which operation, and whether for a device."""

    account: Account
    public_key: bytes
    op: str
    device: bool = False


class _Claimed(NamedTuple):
    answered: bool
    elsewhere: Whereabouts | None = None


class KeyClaims:
    """Claims keys around what makes something of them. Where the ledger does not answer, this exit's own rules hold."""

    def __init__(self, claims: Claims, intents: Intents, own_id: str) -> None:
        self._claims = claims
        self._intents = intents
        self._own_id = own_id
        self._later: set[asyncio.Task[None]] = set()

    async def around(
        self,
        wish: KeyWish,
        make: Callable[[], Awaitable[T]],
        id_of: Callable[[T], str],
        lost: Lost | None = None,
        place: SessionPlace | None = None,
    ) -> T:
        """Returns what `make` makes with the key. If it fails, the claim is given up.

        A session that has the key on another exit is ended there once `make` is done. `lost` is done with the id of
        what was made if another exit has got the key meanwhile, not knowing of it. `place`: is asked for meanwhile.
        Raises what the ledger refuses with: KeyInUse or InvalidRequest.
        """
        claimed = await (self._claim(wish) if place is None else self._claim_and_ask(wish, place))
        try:
            made = await make()
        except BaseException:
            # Also one that was not answered: it may have been made.
            self.release_later(wish.public_key, wish.op)
            raise
        await self._end_elsewhere(wish, claimed)
        self._begin(self._made(wish, id_of(made), claimed, lost))
        return made

    async def _claim_and_ask(self, wish: KeyWish, place: SessionPlace) -> _Claimed:
        """Claims the key and asks for room at once: the opening waits for one answer's time."""
        asking = asyncio.ensure_future(place.ask())
        try:
            claimed = await self._claim(wish)
            await asking
        finally:
            asking.cancel()
        if claimed.elsewhere is None:
            await place.ask_again()  # else it takes the place of a session, here or there
        elif claimed.elsewhere.node_id != self._own_id:
            place.replaces()
        return claimed

    async def _claim(self, wish: KeyWish) -> _Claimed:
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await self._claims.claim_key(wish.public_key, wish.account.id, wish.op, device=wish.device)
                return _Claimed(True, found)
        except (FleetError, TimeoutError) as error:
            log.info("a key was not claimed, as the ledger has not answered: %s", error)
            return _Claimed(False)

    async def _end_elsewhere(self, wish: KeyWish, claimed: _Claimed) -> None:
        there = claimed.elsewhere
        if there is not None and there.node_id != self._own_id:
            await self._intents.end(there.node_id, EndSession(wish.account.id, there.session_id, replaced=True))

    def settle(self, wish: KeyWish, made_id: str) -> None:
        """Notes for what a key was claimed; the caller does not wait."""
        self._begin(self._settled(wish, made_id, None))

    def release_later(self, public_key: bytes, op: str) -> None:
        """Gives up a claim; the caller does not wait."""
        self._begin(self._released(public_key, op))

    async def _made(self, wish: KeyWish, made_id: str, claimed: _Claimed, lost: Lost | None) -> None:
        """Settles a claim; claims before where that was not answered: what was made is newer than what had the key."""
        if not claimed.answered:
            try:
                claimed = await self._claim(wish)
            except ApplianceError as error:
                log.warning("the key of %s is in use elsewhere in the fleet: %s", made_id, error)
                return
            if not claimed.answered:
                return
            await self._end_elsewhere(wish, claimed)
        await self._settled(wish, made_id, lost)

    async def _settled(self, wish: KeyWish, made_id: str, lost: Lost | None) -> None:
        try:
            if await self._claims.settle_key(wish.public_key, wish.account.id, wish.op, made_id, device=wish.device):
                return
        except FleetError as error:
            log.info("the ledger was not told of a session: %s", error)
            return
        log.info("the key of %s was given to another exit while it was made", made_id)
        try:
            if lost is not None:
                await lost(made_id)
        except ApplianceError as error:
            log.warning("%s, whose key another exit has, was not ended yet: %s", made_id, error)

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

    def __init__(self, sessions: SessionService, claims: KeyClaims, lending: GrantSource) -> None:
        self._sessions = sessions
        self._claims = claims
        self._lending = lending

    async def open(self, account: Account, request: SessionRequest, op: str, noted: Noted | None = None) -> Opened:
        """Opens a session for the public key of the request. Raises as `SessionService.install` and KeyClaims do."""

        async def end(session_id: str) -> None:
            await self._sessions.close(account, session_id, Reason.REPLACED)

        grants = self._lending.grants
        with nullcontext() if grants is None else grants.place(account) as place:
            return await self._claims.around(
                KeyWish(account, request.public_key or b"", op),
                lambda: self._sessions.install(account, request, noted),
                lambda opened: opened.session.id,
                end,
                place,
            )

    async def take_back(
        self, account: Account, session_id: str, replaced_id: str | None, public_key: bytes, op: str
    ) -> None:
        """Undoes a session that was opened here, and its claim. Raises PeerApplyFailed: it is not undone in time."""
        await self._sessions.take_back(account, session_id, replaced_id)
        if replaced_id is None:
            self._claims.release_later(public_key, op)
        else:
            self._claims.settle(KeyWish(account, public_key, op), replaced_id)
