"""Opens sessions: decides whether one may be opened, installs its peer, and rolls back if that fails."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from appliance.config.log_format import about
from appliance.domain import accounting, admission, ids, quota
from appliance.domain.entities import Reason, Session, State
from appliance.domain.errors import InvalidToken, NoActiveNodes, PeerApplyFailed, StoreUnavailable, TunnelError
from appliance.domain.tiers import Tier
from appliance.network.wireguard import keys
from appliance.network.wireguard.tunnel import PutPeer, RemovePeer
from appliance.sessions.ending import ids_of, note_end
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import invoices
from appliance.store.queries import sessions as rows
from appliance.store.queries import tokens as token_rows

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    import aiosqlite

    from appliance.config.plans import Terms
    from appliance.domain.clock import Moment
    from appliance.domain.entities import Account
    from appliance.network.exit_node import Exit
    from appliance.sessions.address_quarantine import Addresses
    from appliance.sessions.metrics import Metrics
    from appliance.sessions.node import Node
    from appliance.sessions.peer_access import PeerAccess
    from appliance.sessions.records import Records
    from appliance.sessions.rollback import Rollback
    from appliance.sessions.schedule import Schedule

log = logging.getLogger(__name__)

UNDO_TIMEOUT_S = 1.0


class Placement(Protocol):
    """Chooses the node that takes a new session."""

    def choose(self, region: str) -> Node:
        """Returns an active node of the region.

        Raises NoActiveNodes: if no node is active. Raises NoActiveNodeInRegion: if none of this region is.
        """


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """Holds what a client asks for, checked. `public_key` None: the server makes the key pair. `dns`: the resolvers of
    the file's DNS line, none for no line; None: the operator's. `token_hash`: of the token it is asked for with."""

    region: str
    public_key: bytes | None = None
    ipv6: bool = True
    dns: tuple[IPv4Address | IPv6Address, ...] | None = None
    token_hash: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class NewSession:
    """Holds a new session, and the wg-quick file with which its client connects."""

    session: Session
    wg_config: str = field(repr=False)  # may hold a private key


@dataclass(frozen=True, slots=True)
class _Admitted:
    """Holds a session whose row is pending, the one whose key and address it takes over, and the node it is on."""

    account: Account
    pending: Session
    replaced: Session | None
    node: Node
    token_hash: bytes = field(repr=False)


class Opening:
    """Opens sessions. A session that cannot be opened leaves nothing behind."""

    def __init__(
        self,
        *,
        records: Records,
        peers: PeerAccess,
        addresses: Addresses,
        rollback: Rollback,
        placement: Placement,
        exit_: Exit,
        terms: Terms,
        schedule: Schedule,
        metrics: Metrics,
    ) -> None:
        self._records = records
        self._peers = peers
        self._addresses = addresses
        self._rollback = rollback
        self._placement = placement
        self._exit = exit_
        self._terms = terms
        self._schedule = schedule
        self._metrics = metrics

    async def open(self, account: Account, request: SessionRequest) -> NewSession:
        """Opens a session. Nothing is left of it if this raises.

        Raises InvalidToken: if the account is gone or disabled. Raises PeerApplyFailed: if the peer could not be
        installed in time. Raises StoreUnavailable, or the error with which policy, placement or the pool refuses.
        """
        private_key = None
        public_key = request.public_key
        if public_key is None:
            private_key = keys.generate_private_key()
            public_key = keys.public_key(private_key)
        async with self._peers.keys.hold(public_key):
            await self._rollback.run()
            await self._addresses.quarantine.release_if_exhausted()
            admitted = await self._admit(account, request, public_key)
            try:
                session = await self._install(admitted)
            except Exception:
                await self._undo(admitted)
                raise
        self._metrics.sessions_opened.labels(session.tier).inc()
        log.info("session opened", extra=about(**ids_of(session), tier=session.tier))
        return NewSession(session, self._config(session, private_key, request))

    def _config(self, session: Session, private_key: bytes | None, request: SessionRequest) -> str:
        return self._exit.client_config(session, private_key, ipv6=request.ipv6, dns=request.dns)

    async def _admit(self, account: Account, request: SessionRequest, public_key: bytes) -> _Admitted:
        """Decides and inserts the pending row in one transaction: two requests are never admitted on the same facts."""
        allocated: int | None = None
        pending: Session | None = None
        try:
            async with self._records.store.write() as db:
                # The account may have changed tier or been removed since its token was looked up.
                current = await account_rows.by_id(db, account.id)
                if current is None or current.disabled:
                    raise InvalidToken
                now = self._records.clock.now()
                admit = await self._decide(db, current, public_key, now)
                node = self._placement.choose(request.region)
                if admit.replaces is None:
                    offset = allocated = self._addresses.pool.allocate()
                else:
                    offset = admit.replaces.address_offset
                pending = self._pending(current, request, node, public_key, offset, admit.expires_at, now)
                await rows.insert_pending(db, pending, request.token_hash)
        except BaseException:
            if pending is not None:
                # A commit that was reported as failed may have been made.
                self._rollback.add(pending.id, allocated)
            elif allocated is not None:
                self._addresses.pool.release(allocated)
            raise
        return _Admitted(current, pending, admit.replaces, node, request.token_hash)

    async def _decide(
        self, db: aiosqlite.Connection, account: Account, public_key: bytes, now: Moment
    ) -> admission.Admit:
        tier = self._terms.tiers[account.tier]
        own = await rows.unfinished_of(db, account.id)
        uses = accounting.unspent(own, self._records.live.heartbeat, now)
        decision = admission.decide(
            account,
            tier,
            own,
            await rows.holder_of(db, public_key),
            quota.measure(account, tier, uses, now.wall_ms),
            now.wall_ms,
        )
        if isinstance(decision, admission.Refuse):
            raise decision.error
        return decision

    def _pending(
        self,
        account: Account,
        request: SessionRequest,
        node: Node,
        public_key: bytes,
        offset: int,
        expires_at: int,
        now: Moment,
    ) -> Session:
        return Session(
            id=ids.session_id(),
            account_id=account.id,
            account=account.name,
            tier=account.tier,
            account_tier=account.tier,
            region=node.region,
            public_ip=node.public_ip,
            public_key=public_key,
            address_offset=offset,
            ipv6=request.ipv6 and self._exit.subnet6 is not None,
            state=State.PENDING,
            created_at=now.wall_ms,
            expires_at=expires_at,
            bytes_in=0,
            bytes_out=0,
            last_handshake_at=None,
            handshake_seen_ns=0,
            quiet_since_ms=now.boot_ms,
            quiet_boot_id=now.boot_id,
            counted_ms=0,
            counted_until_ms=now.boot_ms,
            counted_boot_id=now.boot_id,
            rates=self._terms.rates if account.tier is Tier.PAID else None,
            reason=None,
            note="",
            terminated_at=None,
        )

    async def _install(self, admitted: _Admitted) -> Session:
        """Adds the peer to the tunnel and marks the row live."""
        deadline = self._peers.deadline()
        try:
            async with self._peers.locked(deadline):
                # A replacement keeps the peer, its counters and its handshake: bytes moved so far are billed to
                # the old session, bytes moved from here on to the new one.
                kept = admitted.replaced is not None
                async with asyncio.timeout_at(deadline):
                    await self._peers.tunnel.apply([PutPeer(self._exit.peer(admitted.pending), fresh=not kept)])
                seen = 0
                if kept:
                    dump = await self._records.meter.read()
                    seen = dump.peers[admitted.pending.public_key].last_handshake_ns
                session = await self._go_live(admitted, seen)
        except (TunnelError, TimeoutError, KeyError) as error:
            log.warning("peer of a new session was not applied: %s", error, extra=about(**ids_of(admitted.pending)))
            admitted.node.health.apply_failed()
            self._schedule.check_soon()
            raise PeerApplyFailed from error
        admitted.node.health.apply_succeeded()
        return session

    async def _go_live(self, admitted: _Admitted, handshake_seen_ns: int) -> Session:
        records = self._records
        now = records.clock.now()
        pending, replaced = admitted.pending, admitted.replaced
        last = records.meter.count_time([] if replaced is None else [records.live[replaced.public_key]])
        async with records.committing() as db:
            await records.meter.write(db, last)
            if replaced is not None:
                await rows.mark_terminated(db, [(replaced.id, Reason.REPLACED)], now.wall_ms)
                await invoices.end(db, [replaced.id], now.wall_ms)
            if not await rows.mark_live(db, pending.id, now, handshake_seen_ns):
                enabled = await account_rows.enabled(db, pending.account_id)
                usable = enabled and not await token_rows.revoked(db, admitted.token_hash)
                raise NoActiveNodes if usable else InvalidToken
            await invoices.begin(db, pending, now.wall_ms)
        session = replace(
            pending,
            state=State.LIVE,
            handshake_seen_ns=handshake_seen_ns,
            quiet_since_ms=now.boot_ms,
            quiet_boot_id=now.boot_id,
            counted_until_ms=now.boot_ms,
        )
        records.meter.apply(last)
        if replaced is not None:
            note_end(self._metrics, replaced, Reason.REPLACED)
        records.live.put(session, admitted.account)
        self._schedule.opened(session)
        return session

    async def _undo(self, admitted: _Admitted) -> None:
        """Rolls back a session that could not be installed. The next tick removes a peer that the tunnel kept."""
        pending, replaced = admitted.pending, admitted.replaced
        change = RemovePeer(pending.public_key) if replaced is None else PutPeer(self._exit.peer(replaced))
        try:
            async with asyncio.timeout(UNDO_TIMEOUT_S), self._peers.exit_lock:
                await self._peers.tunnel.apply([change])
        except (TunnelError, TimeoutError) as error:
            log.warning(
                "peer of a failed session not removed yet: %s", error or "no answer", extra=about(**ids_of(pending))
            )
        self._rollback.add(pending.id, pending.address_offset if replaced is None else None)
        try:
            await self._rollback.run()
        except StoreUnavailable as error:
            log.warning("row of a failed session not deleted yet: %s", error.__cause__, extra=about(**ids_of(pending)))
        self._addresses.quarantine.begin_release()
