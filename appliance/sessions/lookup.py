"""Opening and ending sessions: the one place that joins policy, store, addresses and peers."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.config.log_format import about
from appliance.domain import accounting, admission, ids, quota
from appliance.domain.entities import Reason, Session, State
from appliance.domain.errors import (
    InvalidToken,
    NoActiveNodes,
    PeerApplyFailed,
    SessionNotFound,
    StoreUnavailable,
    TunnelError,
)
from appliance.domain.tiers import Tier
from appliance.network.wireguard import keys
from appliance.network.wireguard.tunnel import PutPeer, RemovePeer
from appliance.sessions.key_locks import KeyLocks
from appliance.sessions.rollback import Leftovers
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import invoices
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    import aiosqlite

    from appliance.config.plans import Terms
    from appliance.domain.clock import Clock, Moment
    from appliance.domain.entities import Account
    from appliance.metering.meter import Meter
    from appliance.network.address_pool import AddressPool
    from appliance.network.exit_node import Exit
    from appliance.network.wireguard.tunnel import Tunnel
    from appliance.sessions.address_quarantine import RetiredAddresses
    from appliance.sessions.metrics import Metrics
    from appliance.sessions.node import Node, Nodes
    from appliance.store.database import Store
    from appliance.store.live import LiveSessions

log = logging.getLogger(__name__)

UNDO_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asks for, checked. `public_key` None: the server makes the key pair."""

    region: str
    public_key: bytes | None = None
    ipv6: bool = True


@dataclass(frozen=True, slots=True)
class Opened:
    session: Session
    wg_config: str = field(repr=False)  # may hold a private key


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A session whose row is pending, the one whose key and address it takes over, and the exit that takes it."""

    account: Account
    pending: Session
    replaced: Session | None
    node: Node


class Sessions:
    """Whoever reads counters or changes peers holds `turn` until the store has what came of it.

    `tunnel` must answer each call or raise TunnelError within `apply_timeout` seconds. `check_soon` asks for
    the exit to be compared with the store before the next tick is due; `opened` is told which session has begun.
    """

    def __init__(
        self,
        *,
        store: Store,
        tunnel: Tunnel,
        meter: Meter,
        live: LiveSessions,
        pool: AddressPool,
        retired: RetiredAddresses,
        nodes: Nodes,
        exit_: Exit,
        terms: Terms,
        clock: Clock,
        turn: asyncio.Lock,
        apply_timeout: float,
        check_soon: Callable[[], None],
        opened: Callable[[Session], None],
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._tunnel = tunnel
        self._meter = meter
        self._live = live
        self._pool = pool
        self._retired = retired
        self._leftovers = Leftovers(store, live, retired, check_soon)
        self._nodes = nodes
        self._exit = exit_
        self._terms = terms
        self._clock = clock
        self._turn = turn
        self._apply_timeout = apply_timeout
        self._check_soon = check_soon
        self._opened = opened
        self._metrics = metrics
        self._keys = KeyLocks()

    # Opening -----------------------------------------------------------------------------------------

    async def open(self, account: Account, wish: Wish) -> Opened:
        """Open a session, or raise what the contract says; then nothing is left of it."""
        private_key = None
        public_key = wish.public_key
        if public_key is None:
            private_key = keys.generate_private_key()
            public_key = keys.public_key(private_key)
        async with self._keys.hold(public_key):
            await self._leftovers.clear()
            await self._retired.make_room()
            admitted = await self._admit(account, wish, public_key)
            try:
                session = await self._install(admitted)
            except Exception:
                await self._undo(admitted)
                raise
        self._metrics.sessions_opened.labels(session.tier).inc()
        log.info("session opened", extra=about(**_ids(session), tier=session.tier))
        return Opened(session, self._exit.client_config(session, private_key, ipv6=wish.ipv6))

    async def _admit(self, account: Account, wish: Wish, public_key: bytes) -> _Admitted:
        """Decide and insert the pending row in one transaction: no two requests pass on the same facts."""
        allocated: int | None = None
        pending: Session | None = None
        try:
            async with self._store.write() as db:
                # Its tier may have changed, or the account gone, since the token was looked up.
                current = await account_rows.by_id(db, account.id)
                if current is None or current.disabled:
                    raise InvalidToken
                now = self._clock.now()
                admit = await self._decide(db, current, public_key, now)
                node = self._nodes.choose(wish.region)
                if admit.replaces is None:
                    offset = allocated = self._pool.allocate()
                else:
                    offset = admit.replaces.address_offset
                pending = self._pending(current, wish, node, public_key, offset, admit.expires_at, now)
                await rows.insert_pending(db, pending)
        except BaseException:
            if pending is not None:
                # A commit that failed may have been made all the same.
                self._leftovers.add(pending.id, allocated)
            elif allocated is not None:
                self._pool.release(allocated)
            raise
        return _Admitted(current, pending, admit.replaces, node)

    async def _decide(
        self, db: aiosqlite.Connection, account: Account, public_key: bytes, now: Moment
    ) -> admission.Admit:
        tier = self._terms.tiers[account.tier]
        own = await rows.unfinished_of(db, account.id)
        uses = [accounting.use(accounting.running(s, now), now) for s in own]
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
        self, account: Account, wish: Wish, node: Node, public_key: bytes, offset: int, expires_at: int, now: Moment
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
            ipv6=wish.ipv6 and self._exit.subnet6 is not None,
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
        """Put the peer into the tunnel and mark the row live."""
        deadline = asyncio.get_running_loop().time() + self._apply_timeout
        try:
            async with self._take_turn(deadline):
                # A replacement keeps the peer, its counters and its handshake: what moved so far is billed to
                # the old session, what moves from here on to the new one.
                kept = admitted.replaced is not None
                async with asyncio.timeout_at(deadline):
                    await self._tunnel.apply([PutPeer(self._exit.peer(admitted.pending), fresh=not kept)])
                seen = 0
                if kept:
                    dump = await self._meter.read()
                    seen = dump.peers[admitted.pending.public_key].last_handshake_ns
                session = await self._go_live(admitted, seen)
        except (TunnelError, TimeoutError, KeyError) as error:
            log.warning("peer of a new session was not applied: %s", error, extra=about(**_ids(admitted.pending)))
            admitted.node.apply_failed()
            self._check_soon()
            raise PeerApplyFailed from error
        admitted.node.apply_succeeded()
        return session

    async def _go_live(self, admitted: _Admitted, handshake_seen_ns: int) -> Session:
        now = self._clock.now()
        pending, replaced = admitted.pending, admitted.replaced
        last = self._meter.count_time([] if replaced is None else [self._live.by_key[replaced.public_key]])
        async with self._live.committing(self._store) as db:
            await self._meter.put(db, last)
            if replaced is not None:
                await rows.mark_terminated(db, [(replaced.id, Reason.REPLACED)], now.wall_ms)
                await invoices.end(db, [replaced.id], now.wall_ms)
            if not await rows.mark_live(db, pending.id, now, handshake_seen_ns):
                raise NoActiveNodes if await account_rows.enabled(db, pending.account_id) else InvalidToken
            await invoices.begin(db, pending, now.wall_ms)
        session = replace(
            pending,
            state=State.LIVE,
            handshake_seen_ns=handshake_seen_ns,
            quiet_since_ms=now.boot_ms,
            quiet_boot_id=now.boot_id,
            counted_until_ms=now.boot_ms,
        )
        self._meter.take(last)
        if replaced is not None:
            self._note_end(replaced, Reason.REPLACED)
        self._live.put(session, admitted.account)
        self._opened(session)
        return session

    async def _undo(self, admitted: _Admitted) -> None:
        """Take back a session that did not come to be. What the tunnel does not answer to, the next tick removes."""
        pending, replaced = admitted.pending, admitted.replaced
        change = RemovePeer(pending.public_key) if replaced is None else PutPeer(self._exit.peer(replaced))
        try:
            async with asyncio.timeout(UNDO_TIMEOUT_S), self._turn:
                await self._tunnel.apply([change])
        except (TunnelError, TimeoutError) as error:
            log.warning(
                "peer of a failed session not taken back yet: %s", error or "no answer", extra=about(**_ids(pending))
            )
        self._leftovers.add(pending.id, pending.address_offset if replaced is None else None)
        try:
            await self._leftovers.clear()
        except StoreUnavailable as error:
            log.warning("row of a failed session not taken back yet: %s", error.__cause__, extra=about(**_ids(pending)))
        await self._retired.release()

    # Ending ------------------------------------------------------------------------------------------

    async def close(self, account: Account, session_id: str) -> Session:
        """End one of the account's sessions at its own wish; the peer is gone when this returns.

        A session that has ended already is returned as it is.
        """
        session = await self.find(account, session_id)
        if session.state is State.TERMINATED:
            return session
        async with self._keys.hold(session.public_key):
            deadline = asyncio.get_running_loop().time() + self._apply_timeout
            try:
                async with self._take_turn(deadline):
                    current = self._live.by_key.get(session.public_key)
                    if current is not None and current.id == session.id:
                        await self._meter.read()
                        await self.finish([(self._live.by_key[session.public_key], Reason.CLOSED)])
            except (TunnelError, TimeoutError) as error:
                log.warning("peer was not removed yet: %s", error or "no answer", extra=about(**_ids(session)))
                await self._mark_closing(session)
                self._check_soon()
                raise PeerApplyFailed from error
        await self._retired.release()
        return await self.find(account, session_id)

    async def _mark_closing(self, session: Session) -> None:
        async with self._live.committing(self._store) as db:
            await rows.mark_closing(db, [session.id], Reason.CLOSED)
        current = self._live.by_key.get(session.public_key)
        if current is not None and current.id == session.id and current.state is State.LIVE:
            self._live.put(replace(current, state=State.CLOSING, reason=Reason.CLOSED))

    async def finish_free(self, ending: Mapping[bytes, Reason]) -> bool:
        """`finish` those on whose keys no request is at work: a replacement relies on the address. Whether all were."""
        async with self._keys.hold_free(ending) as free:
            await self.finish([(self._live.by_key[key], reason) for key, reason in ending.items() if key in free])
        return len(free) == len(ending)

    async def finish(self, ending: Sequence[tuple[Session, Reason]]) -> None:
        """Remove the peers and end the sessions. The caller holds the turn and has just read the counters."""
        if not ending:
            return
        await self._tunnel.apply([RemovePeer(session.public_key) for session, _ in ending])
        now = self._clock.now().wall_ms
        last = self._meter.count_time([session for session, _ in ending])
        async with self._live.committing(self._store) as db:
            await self._meter.put(db, last)
            await rows.mark_terminated(db, [(s.id, reason) for s, reason in ending], now)
            await invoices.end(db, [s.id for s, _ in ending], now)
            await rows.forget_baselines(db, [s.public_key for s, _ in ending])
        self._meter.take(last)
        for session, reason in ending:
            self._live.drop(session.public_key)
            self._retired.add(session.address_offset)
            self._note_end(session, session.reason or reason)

    async def clear_leftovers(self) -> None:
        """Raises StoreUnavailable."""
        await self._leftovers.clear()

    async def release_addresses(self) -> None:
        """Of the sessions that have ended. The caller does not hold the turn."""
        await self._retired.release()

    def _note_end(self, session: Session, reason: Reason) -> None:
        self._metrics.sessions_terminated.labels(reason).inc()
        log.info("session ended", extra=about(**_ids(session), reason=reason))

    def take_stock(self, unfinished: Iterable[Session]) -> None:
        """Memory is read from the store again: the addresses taken are those of its rows, and of leftovers."""
        held = self._leftovers.offsets().union(session.address_offset for session in unfinished)
        for offset in self._pool.unlike(held):
            if offset in held:
                self._pool.reserve(offset)
            else:
                self._retired.add(offset)

    # Looking up --------------------------------------------------------------------------------------

    async def find(self, account: Account, session_id: str) -> Session:
        """Raises SessionNotFound for an unknown id and another account's alike."""
        session = self._live.session(session_id)
        if session is None:
            async with self._store.read() as db:
                session = await rows.by_id(db, session_id)
        if session is None or session.account_id != account.id or session.state is State.PENDING:
            raise SessionNotFound
        return session

    async def list(self, account: Account, *, live: bool, before: str | None, limit: int) -> list[Session]:
        async with self._store.read() as db:
            return await rows.page(db, rows.Page(account_id=account.id, live=live, before=before, limit=limit))

    @asynccontextmanager
    async def _take_turn(self, deadline: float) -> AsyncIterator[None]:
        """The turn. Raises TimeoutError when it does not come by `deadline`, in the event loop's time.

        What happens under it is not cut short from here: a commit that is cancelled may have been made or not.
        """
        async with asyncio.timeout_at(deadline):
            await self._turn.acquire()
        try:
            yield
        finally:
            self._turn.release()


def _ids(session: Session) -> dict[str, str]:
    return {"session": session.id, "account": session.account_id}
