"""Ends sessions: removes their peers, bills the rest, and puts their addresses into quarantine."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from appliance.config.log_format import about
from appliance.domain.entities import Reason, State
from appliance.domain.errors import PeerApplyFailed, StoreUnavailable
from appliance.network.wireguard.tunnel import RemovePeer
from appliance.sessions import device_ends
from appliance.sessions.batch_closes import CloseRequest, mark_closing
from appliance.sessions.end_notes import ids_of, note_end
from appliance.sessions.waiting import Queue
from appliance.store.queries import invoices, peers
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import aiosqlite

    from appliance.domain.entities import Session
    from appliance.metering.spending import Count
    from appliance.sessions.address_quarantine import AddressQuarantine
    from appliance.sessions.metrics import Metrics
    from appliance.sessions.peer_access import PeerAccess
    from appliance.sessions.records import Records
    from appliance.sessions.schedule import Schedule
    from appliance.sessions.undo import Undo
    from appliance.sessions.waiting import Waiting

log = logging.getLogger(__name__)


class Ending:
    """Ends sessions that a client closes, and those that the ticker finds due."""

    def __init__(
        self,
        *,
        records: Records,
        peers: PeerAccess,
        queue: Queue,
        undo: Undo,
        quarantine: AddressQuarantine,
        schedule: Schedule,
        metrics: Metrics,
    ) -> None:
        self._records = records
        self._peers = peers
        self._queue = queue
        self._given_up = Queue(self._mark_closing, lambda _: None)
        self._undo = undo
        self._quarantine = quarantine
        self._schedule = schedule
        self._metrics = metrics

    async def close(self, session: Session, reason: Reason = Reason.CLOSED) -> None:
        """Ends a session for its client; the peer is gone when this returns. Does nothing if it has ended already.

        Raises PeerApplyFailed: if the peer could not be removed in time; the session is then closing, and the next tick
        ends it, unless it was being replaced meanwhile. Raises StoreUnavailable.
        """
        try:
            await self._queue.ask(CloseRequest(session, reason), self._peers.deadline())
        except TimeoutError as error:
            log.warning("peer was not removed yet: no answer in time", extra=about(**ids_of(session)))
            await self._give_up(session, reason)
            self._schedule.check_soon()
            raise PeerApplyFailed from error

    async def finish_due(self, ending: Mapping[bytes, Reason]) -> bool:
        """Ends the sessions of these keys, but for those that are being undone; returns whether those were all.

        Must be called with the exit lock held, just after reading the counters. Raises TunnelError or StoreUnavailable.
        """
        due = [(self._records.live[key], reason) for key, reason in ending.items() if not self._undo.holds(key)]
        if due:
            await self._finish(due)
        return len(due) == len(ending)

    async def _finish(self, ending: Sequence[tuple[Session, Reason]]) -> None:
        records = self._records
        gone = [session for session, reason in ending if not device_ends.keeps_peer(session, reason)]
        if gone:
            await self._peers.tunnel.apply([RemovePeer(session.public_key) for session in gone])
        last = records.meter.count_time([session for session, _ in ending])
        async with records.committing() as db:
            await self.write_ends(db, ending, last)
        self.ends_committed(ending, last)

    async def write_ends(self, db: aiosqlite.Connection, ending: Sequence[tuple[Session, Reason]], last: Count) -> None:
        """Stores ends in the caller's transaction; the caller must call `ends_committed` once it is committed.

        `last`: the time of these sessions, counted after their peers were removed.
        """
        now = self._records.clock.now().wall_ms
        await self._records.meter.write(db, last)
        await rows.mark_terminated(db, [(s.id, reason, now) for s, reason in ending])
        await invoices.end(db, [(s.id, now) for s, _ in ending])
        await device_ends.write(db, ending)
        await peers.drop(db, [s.address_offset for s, _ in ending])

    def ends_committed(self, ending: Sequence[tuple[Session, Reason]], last: Count) -> None:
        """Takes the same into memory, and gives up what the sessions had."""
        records = self._records
        records.meter.apply(last)
        device_ends.committed(records.live, records.devices, ending)
        for session, reason in ending:
            records.live.drop(session.public_key)
            self._undo.forget(session)
            if records.devices.by_id(session.device_id) is None:  # of none, or of one that was removed
                self._quarantine.add(session.address_offset)
            note_end(self._metrics, session, session.reason or reason)

    def is_undone(self, public_key: bytes) -> bool:
        """Tells whether an opening with this key is to be undone: its peer is about to go."""
        return self._undo.holds(public_key)

    def go_on(self) -> None:
        """Begins what batches have left because something failed, and the release of addresses."""
        if self._undo or self._records.ended:
            self._queue.settle()
        self._quarantine.begin_release()

    async def settled(self) -> None:
        """Waits until the sessions of requests that were given up are stored as closing."""
        await self._given_up.settled()

    async def _give_up(self, session: Session, reason: Reason) -> None:
        """Marks a session closing. What is given up meanwhile is marked in one transaction. Raises StoreUnavailable."""
        try:
            await self._given_up.ask(CloseRequest(session, reason), self._peers.deadline())
        except TimeoutError as error:
            raise StoreUnavailable from error

    async def _mark_closing(self, cut: Callable[[], Sequence[Waiting[Any]]]) -> bool:
        requests = [request for request in cut() if isinstance(request, CloseRequest)]
        try:
            async with self._records.committing() as db:
                await mark_closing(db, requests)
        except StoreUnavailable as error:
            for request in requests:
                request.fail(error)
            return False
        for request in requests:
            current = self._records.live.get(request.public_key)
            if current is not None and current.id == request.session_id and current.state is State.LIVE:
                self._records.live.put(replace(current, state=State.CLOSING, reason=request.reason))
            request.succeed(None)
        return False
