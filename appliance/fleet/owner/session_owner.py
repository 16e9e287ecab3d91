"""Serves other exits' requests for the sessions of this one."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from appliance.domain.entities import Reason
from appliance.domain.errors import InvalidRequest, PeerApplyFailed, SessionNotFound
from appliance.fleet.owner.served_ops import OpKey
from appliance.fleet.rpc.facts import SessionFacts, TunnelRecord
from appliance.fleet.rpc.operations import OperationDone, SessionOpened, SessionsOf, UsedHere
from appliance.network.wireguard import keys
from appliance.sessions.opening import SessionRequest
from appliance.store.queries.fleet_requests import ServedOp

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    import aiosqlite

    from appliance.domain.clock import Clock
    from appliance.domain.entities import Account, Session
    from appliance.fleet.accounts.accounts_here import AccountsHere
    from appliance.fleet.owner.claimed_opening import ClaimedOpening
    from appliance.fleet.owner.served_ops import ServedOps
    from appliance.fleet.rpc.operations import EndSession, ListOfAccount, OneOfAccount, OpenSession, UsageOfAccount
    from appliance.metering.usage import Quotas
    from appliance.sessions.devices.service import DeviceService
    from appliance.sessions.service import SessionService

LONGEST_LIST = 200


class SessionOwner:
    """Opens, shows, lists and ends sessions of this exit for clients of others' APIs. `own_keys`: no client's."""

    def __init__(
        self,
        *,
        accounts: AccountsHere,
        sessions: SessionService,
        devices: DeviceService,
        opening: ClaimedOpening,
        ops: ServedOps,
        own_keys: Container[bytes],
        clock: Clock,
        quotas: Quotas,
    ) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._devices = devices
        self._opening = opening
        self._ops = ops
        self._own_keys = own_keys
        self._clock = clock
        self._quotas = quotas

    async def open(self, sender: str, asked: OpenSession) -> SessionOpened:
        """Opens a session once for each op. Raises PeerApplyFailed: also if it was undone or taken back."""
        key = OpKey(sender, asked.op)
        answer = await self._ops.once(key, lambda: self._open(key, asked))
        opened = msgspec.json.decode(answer, type=SessionOpened)
        account = await self._accounts.of_token(asked.token)
        try:
            session = await self._sessions.find(account, opened.session.id)
        except SessionNotFound as error:
            raise PeerApplyFailed from error
        if not self._sessions.stands(session):
            raise PeerApplyFailed
        return opened

    async def _open(self, key: OpKey, asked: OpenSession) -> bytes:
        account = await self._accounts.of_token(asked.token)
        if len(asked.public_key) != keys.KEY_LENGTH:
            raise InvalidRequest("client_public_key must be a WireGuard public key")
        keys.refuse_weak(asked.public_key, "client_public_key", self._own_keys)
        request = SessionRequest(
            asked.region, asked.public_key, asked.ipv6, token_hash=self._accounts.hash_of(asked.token)
        )
        answer = b""

        async def note(db: aiosqlite.Connection, session: Session, replaced: Session | None) -> None:
            nonlocal answer
            answer = msgspec.json.encode(self._opened(session, ipv6=asked.ipv6))
            made = ServedOp(session.id, None if replaced is None else replaced.id, answer)
            await self._ops.note(db, key, made)

        await self._opening.open(account, request, key.op, note)
        return answer

    def _opened(self, session: Session, *, ipv6: bool) -> SessionOpened:
        tunnel = TunnelRecord.of(self._sessions.tunnel_of(session, ipv6=ipv6))
        return SessionOpened(SessionFacts.of(session, self._clock.now()), tunnel)

    async def undo(self, op: str, made: ServedOp) -> None:
        """Undoes what was opened for an op: leaves no row, address, peer or invoice line, unless it has ended.

        Raises PeerApplyFailed: it is not undone in time. Raises StoreUnavailable.
        """
        session = await self._accounts.session(made.made_id or "")
        if session is None:
            return
        account = await self._accounts.of_session(session)
        await self._opening.take_back(account, session.id, made.replaced_id, session.public_key, op)

    async def settled(self) -> None:
        """Waits until what was given up is undone. Raises PeerApplyFailed: if that takes too long."""
        await self._sessions.settled()

    async def status(self, asked: OneOfAccount) -> SessionFacts:
        """Shows a session. Raises SessionNotFound."""
        account = await self._accounts.of_token(asked.token)
        (facts,) = await self._facts(account, [await self._sessions.find(account, asked.id)])
        return facts

    async def close(self, asked: OneOfAccount) -> SessionFacts:
        """Ends a session, and shows it. Raises SessionNotFound, or PeerApplyFailed: its peer is still there."""
        account = await self._accounts.of_token(asked.token)
        (facts,) = await self._facts(account, [await self._sessions.close(account, asked.id)])
        return facts

    async def end(self, asked: EndSession) -> OperationDone:
        """Ends a session that its client has done with, if it is there. Raises PeerApplyFailed."""
        session = await self._accounts.session(asked.id)
        if session is not None and session.account_id == asked.account_id:
            with suppress(SessionNotFound):
                reason = Reason.REPLACED if asked.replaced else Reason.CLOSED
                await self._sessions.close(await self._accounts.of_session(session), asked.id, reason)
        return OperationDone()

    async def list(self, asked: ListOfAccount) -> SessionsOf:
        """Lists sessions by (created_at, id)."""
        account = await self._accounts.of_token(asked.token)
        limit = max(1, min(asked.limit, LONGEST_LIST))
        found = await self._sessions.list_by_time(account, live=asked.live, before=asked.before, limit=limit)
        return SessionsOf([*await self._facts(account, found)])

    async def usage(self, asked: UsageOfAccount) -> UsedHere:
        """Tells what an account has used here."""
        quota = (await self._quotas.of(await self._accounts.of_token(asked.token))).own
        return UsedHere(quota.bytes_used, quota.time_used_ms)

    async def _facts(self, account: Account, found: Sequence[Session]) -> Sequence[SessionFacts]:
        names, now = await self._devices.names(found), self._clock.now()
        quota = (await self._quotas.of(account)).told
        return [SessionFacts.of(each, now, names.get(each.device_id), quota) for each in found]
