"""Opens the sessions that one batch of requests asks for: decides, reserves, stores, and answers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from appliance.config.log_format import about
from appliance.domain import admission
from appliance.domain.entities import Reason, State
from appliance.domain.errors import (
    ApplianceError,
    InvalidRequest,
    InvalidToken,
    KeyInUse,
    NoActiveNodes,
    PeerApplyFailed,
    TunnelError,
)
from appliance.metering import usage
from appliance.network.wireguard.tunnel import PutPeer
from appliance.sessions.batch_accounts import accounts_of
from appliance.sessions.end_notes import ids_of, note_end
from appliance.sessions.new_session import new_session
from appliance.sessions.waiting import Waiting
from appliance.store.queries import devices, invoices
from appliance.store.queries import sessions as rows
from appliance.store.queries import tokens as token_rows

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Mapping, Sequence

    import aiosqlite

    from appliance.config.plans import Terms
    from appliance.domain.clock import Moment
    from appliance.domain.entities import Account, Session
    from appliance.domain.errors import StoreUnavailable
    from appliance.metering.meter import Observation
    from appliance.network.address_pool import AddressPool
    from appliance.network.exit_node import Exit
    from appliance.sessions.metrics import Metrics
    from appliance.sessions.node import Node
    from appliance.sessions.records import Records
    from appliance.sessions.schedule import Schedule
    from appliance.sessions.undo import Undo

log = logging.getLogger(__name__)


class Placement(Protocol):
    """Chooses the node that takes a new session."""

    def choose(self, region: str) -> Node:
        """Returns an active node of the region.

        Raises NoActiveNodes: if no node is active. Raises NoActiveNodeInRegion: if none of this region is.
        """


@dataclass(frozen=True, slots=True)
class Opened:
    """Holds a session as it is stored, live. `replaced`: the session whose key and address it has taken over."""

    session: Session
    replaced: Session | None


class Noted(Protocol):
    """Notes what is made for a request, in the transaction that stores it."""

    async def __call__(self, db: aiosqlite.Connection, session: Session, replaced: Session | None) -> None: ...


class OpenRequest(Waiting[Opened]):
    """Asks for a session of `account`, in `region`. `token_hash`: of the token it is asked for with. `again`: it found
    no address free before, and has lost its place to those that have come since. `noted` None: nothing is noted."""

    def __init__(
        self,
        account: Account,
        region: str,
        public_key: bytes,
        token_hash: bytes,
        *,
        ipv6: bool,
        again: bool = False,
        noted: Noted | None = None,
    ) -> None:
        super().__init__(public_key)
        self.account = account
        self.region = region
        self.token_hash = token_hash
        self.ipv6 = ipv6
        self.again = again
        self.noted = noted


@dataclass(frozen=True, slots=True)
class Admitted:
    """Holds a session that may be opened and is not stored yet, its node, and the session that it replaces, if any."""

    request: OpenRequest
    account: Account
    session: Session
    replaced: Session | None
    node: Node


def _in_use(holder: str, account: Account) -> ApplianceError:
    if holder == account.id:
        return KeyInUse()
    return InvalidRequest("client_public_key is in use by another account")


async def _note(db: aiosqlite.Connection, opened: Iterable[tuple[Admitted, Session]]) -> None:
    for a, session in opened:
        if a.request.noted is not None:
            await a.request.noted(db, session, a.replaced)


class BatchOpens:
    """Opens sessions. Its methods must be called with the exit lock held, in this order; each takes what the one
    before has let through, and answers the requests that end there."""

    def __init__(
        self,
        *,
        records: Records,
        pool: AddressPool,
        undo: Undo,
        placement: Placement,
        exit_: Exit,
        terms: Terms,
        schedule: Schedule,
        metrics: Metrics,
    ) -> None:
        self._records = records
        self._pool = pool
        self._undo = undo
        self._placement = placement
        self._exit = exit_
        self._terms = terms
        self._schedule = schedule
        self._metrics = metrics

    async def admit(self, requests: Sequence[OpenRequest], opening: Counter[str]) -> list[Admitted]:
        """Decides which sessions may be opened, and reserves their addresses.

        `opening`: how many more sessions of each account the batch opens so far; these are added.
        """
        asked = [(request, request.account.id) for request in requests]
        if (accounts := await accounts_of(self._records.store, asked)) is None:
            return []
        admitted, now = [], self._records.clock.now()
        for request in requests:
            try:
                admitted.append(self._admit(request, accounts.get(request.account.id), opening, now))
            except ApplianceError as error:
                request.fail(error)
        return admitted

    def _admit(self, request: OpenRequest, account: Account | None, opening: Counter[str], now: Moment) -> Admitted:
        if account is None or account.disabled:
            raise InvalidToken
        if self._undo.holds(request.public_key):
            raise PeerApplyFailed  # of an earlier session, that nobody was told of
        device = self._records.devices.get(request.public_key)
        if device is not None:
            raise _in_use(device.account_id, account)
        live = self._records.live
        tier = self._terms.tiers[account.tier]
        places = live.number_live(account.id) + opening[account.id] + self._undo.places(account.id)
        decision = admission.decide(
            account,
            tier,
            places,
            live.get(request.public_key),
            usage.in_memory(live, account, tier, now, self._records.lending.lent),
            now.wall_ms,
        )
        if isinstance(decision, admission.Refuse):
            raise decision.error
        if request.again and decision.replaces is not None:
            raise PeerApplyFailed  # the key's session was asked for later: this request must not replace it
        node = self._placement.choose(request.region)
        replaced = decision.replaces
        offset = self._pool.allocate() if replaced is None else replaced.address_offset
        opening[account.id] += replaced is None or replaced.state is not State.LIVE
        session = self._session(request, account, node, offset, decision.expires_at, now)
        return Admitted(request, account, session, replaced, node)

    def _session(
        self, request: OpenRequest, account: Account, node: Node, offset: int, expires_at: int, now: Moment
    ) -> Session:
        return new_session(
            account,
            node,
            self._terms.rates,
            public_key=request.public_key,
            address_offset=offset,
            ipv6=request.ipv6 and self._exit.subnet6 is not None,
            now=now,
            expires_at=expires_at,
        )

    # The tunnel ---------------------------------------------------------------------------------------

    def peer_changes(self, admitted: Iterable[Admitted]) -> list[PutPeer]:
        """Returns the peers to add. A replacement keeps its peer, with counters and handshake: bytes moved so far are
        billed to the old session, bytes moved from here on to the new one."""
        return [PutPeer(self._exit.peer(a.session), fresh=a.replaced is None) for a in admitted]

    def applied(self, admitted: Sequence[Admitted], refused: Mapping[bytes, TunnelError]) -> list[Admitted]:
        """Takes note of the peers that were refused; returns the others, without requests that were given up."""
        for a in admitted:
            if (error := refused.get(a.session.public_key)) is not None:
                self._fail_peer(a, error)
        left = [a for a in admitted if a.session.public_key not in refused]
        if left:
            left[0].node.health.apply_succeeded()
        elif admitted:
            admitted[0].node.health.apply_failed()
        for a in left:
            if a.request.abandoned:
                self._undo.add(a.session, a.replaced)
        return [a for a in left if not a.request.abandoned]

    def observed(self, admitted: Sequence[Admitted], seen: Observation | None) -> list[Admitted]:
        """Returns those whose counters are known, if they replace a session. `seen` None: nothing could be read."""
        peers = {} if seen is None else seen.dump.peers
        for a in admitted:
            if a.replaced is not None and a.session.public_key not in peers:
                self._fail_peer(a, TunnelError("its counters could not be read"))
        return [a for a in admitted if not self._undo.holds(a.session.public_key)]

    def _fail_peer(self, a: Admitted, error: TunnelError) -> None:
        log.warning("peer of a new session was not applied: %s", error, extra=about(**ids_of(a.session)))
        self._undo.add(a.session, a.replaced)
        self._schedule.check_soon()
        refusal = PeerApplyFailed()
        refusal.__cause__ = error
        a.request.fail(refusal)

    # The store ----------------------------------------------------------------------------------------

    async def write(
        self, db: aiosqlite.Connection, admitted: Sequence[Admitted], seen: Observation | None
    ) -> list[tuple[Admitted, Session]]:
        """Stores sessions in the caller's transaction, and returns them, live; the caller must call `committed` with
        them, or `not_committed`.

        Leaves out those whose account or token an admin has disabled meanwhile, or whose address a command has given
        to a device, and all if the node was drained; and requests that were given up while the store was locked, whose
        sessions a crash would leave.
        """
        if not admitted:
            return []
        now = self._records.clock.now()
        opened, tokens = [], []
        of_devices = await devices.having(
            db, [a.session.address_offset for a in admitted], [a.session.public_key for a in admitted]
        )
        permits = await token_rows.permits(db, [(a.account.id, a.request.token_hash) for a in admitted])
        for a, permit in zip(admitted, permits, strict=True):
            if a.request.abandoned:
                self._undo.add(a.session, a.replaced)
            elif not of_devices.isdisjoint((a.session.address_offset, a.session.public_key)):
                self._records.live.mark_stale()  # the pool is corrected as memory is read again
                self._fail_peer(a, TunnelError("its address or key was given to a device meanwhile"))
            elif permit.usable and not permit.drained:
                opened.append((a, self._live(a, seen, now)))
                tokens.append(permit.token_id)
            else:
                self._undo.add(a.session, a.replaced)
                a.request.fail(NoActiveNodes() if permit.usable else InvalidToken())
        replaced = [a.replaced.id for a, _ in opened if a.replaced is not None]
        sessions = [session for _, session in opened]
        if replaced:
            await rows.mark_terminated(db, [(session_id, Reason.REPLACED, now.wall_ms) for session_id in replaced])
            await invoices.end(db, [(session_id, now.wall_ms) for session_id in replaced])
        await rows.insert(db, list(zip(sessions, tokens, strict=True)))
        await invoices.begin(db, sessions, now.wall_ms)
        await _note(db, opened)
        return opened

    def _live(self, a: Admitted, seen: Observation | None, now: Moment) -> Session:
        """Returns the session as of when its peer was installed. `seen`: has the handshake that a kept peer had, and
        until when its time was counted. A kept peer carries as long for this session as it would have for the last."""
        key = a.session.public_key
        peer = None if seen is None else seen.dump.peers.get(key)
        before = a.replaced if seen is None else seen.count.sessions.get(key, a.replaced)
        counted_until = now if seen is None or a.replaced is None else seen.now
        return replace(
            a.session,
            state=State.LIVE,
            handshake_seen_ns=0 if peer is None else peer.last_handshake_ns,
            quiet_since_ms=now.boot_ms,
            quiet_boot_id=now.boot_id,
            counted_until_ms=counted_until.boot_ms,
            counted_boot_id=counted_until.boot_id,
            carries_until_ms=0 if a.replaced is None or before is None else before.carries_until_ms,
        )

    def committed(self, opened: Iterable[tuple[Admitted, Session]]) -> None:
        """Takes the stored sessions into memory, and answers their requests."""
        live = self._records.live
        for a, session in opened:
            found = Opened(session, None if a.replaced is None else live[session.public_key])  # with its last figures
            live.put(session, a.account)
            self._schedule.opened(session)
            if a.request.abandoned:
                self.abandoned(found)
                continue
            if a.replaced is not None:
                note_end(self._metrics, a.replaced, Reason.REPLACED)
            self._metrics.sessions_opened.labels(session.tier).inc()
            log.info("session opened", extra=about(**ids_of(session), tier=session.tier))
            a.request.succeed(found)

    def not_committed(self, admitted: Iterable[Admitted], error: StoreUnavailable) -> None:
        """Answers the requests, of whose sessions the store may have something."""
        for a in admitted:
            self._undo.add(a.session, a.replaced)
            a.request.fail(error)

    def give_up(self, admitted: Iterable[Admitted]) -> None:
        """Has undone what was not answered, whatever has happened to it."""
        for a in admitted:
            if not a.request.answer.done():
                self._undo.add(a.session, a.replaced)

    def abandoned(self, opened: Opened) -> None:
        """Has a session undone, of which nobody was told. It may be called without the exit lock.

        One that has ended has given up what it had.
        """
        found = self._records.live.get(opened.session.public_key)
        if found is None or found.id != opened.session.id:
            return
        log.warning("session undone: its request was given up", extra=about(**ids_of(opened.session)))
        self._undo.add(opened.session, opened.replaced)
