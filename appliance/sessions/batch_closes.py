"""Ends the sessions that one batch of requests closes: stores their last figures, then removes their peers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.config.log_format import about
from appliance.domain.entities import Reason, State
from appliance.domain.errors import PeerApplyFailed
from appliance.network.wireguard.tunnel import RemovePeer
from appliance.sessions import device_ends
from appliance.sessions.end_notes import ids_of, note_end
from appliance.sessions.waiting import Waiting
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import aiosqlite

    from appliance.domain.entities import Session
    from appliance.domain.errors import StoreUnavailable, TunnelError
    from appliance.metering.meter import Observation
    from appliance.sessions.address_quarantine import AddressQuarantine
    from appliance.sessions.metrics import Metrics
    from appliance.sessions.records import Records
    from appliance.sessions.schedule import Schedule
    from appliance.sessions.undo import Undo

log = logging.getLogger(__name__)


class CloseRequest(Waiting[None]):
    """Asks for the end of a session. `reason`: why it ends, if it is not ending already."""

    def __init__(self, session: Session, reason: Reason = Reason.CLOSED) -> None:
        super().__init__(session.public_key)
        self.session_id = session.id
        self.reason = reason


async def mark_closing(db: aiosqlite.Connection, requests: Sequence[CloseRequest]) -> None:
    """Marks the sessions closing in the caller's transaction."""
    for reason in dict.fromkeys(request.reason for request in requests):
        await rows.mark_closing(db, [r.session_id for r in requests if r.reason is reason], reason)


class BatchCloses:
    """Ends sessions. Its methods must be called with the exit lock held, in this order."""

    def __init__(
        self,
        *,
        records: Records,
        undo: Undo,
        quarantine: AddressQuarantine,
        schedule: Schedule,
        metrics: Metrics,
    ) -> None:
        self._records = records
        self._undo = undo
        self._quarantine = quarantine
        self._schedule = schedule
        self._metrics = metrics

    def current(self, requests: Iterable[CloseRequest]) -> list[CloseRequest]:
        """Returns the requests whose sessions have not ended; answers the others."""
        current = []
        for request in requests:
            session = self._records.live.get(request.public_key)
            if self._undo.holds(request.public_key):
                request.fail(PeerApplyFailed())  # whose the peer will be is not known before that is undone
            elif session is None or session.id != request.session_id:
                request.succeed(None)
            else:
                current.append(request)
        return current

    async def write(self, db: aiosqlite.Connection, requests: Sequence[CloseRequest]) -> None:
        """Marks the sessions closing in the caller's transaction, in which what was read of them is written too."""
        await mark_closing(db, requests)

    def committed(self, requests: Iterable[CloseRequest], seen: Observation | None) -> None:
        """Takes the same into memory. `seen` None: answers the requests, whose sessions the next tick ends."""
        live = self._records.live
        for request in requests:
            session = live[request.public_key]
            live.put(replace(session, state=State.CLOSING, reason=session.reason or request.reason))
            if seen is None:
                self._fail(request, None)

    def not_committed(self, requests: Iterable[CloseRequest], error: StoreUnavailable) -> None:
        """Answers the requests whose sessions the store may have marked or not."""
        for request in requests:
            request.fail(error)

    def peer_changes(self, requests: Iterable[CloseRequest]) -> list[RemovePeer]:
        """Returns the peers to remove."""
        return [RemovePeer(request.public_key) for request in requests]

    def applied(
        self, requests: Iterable[CloseRequest], refused: Mapping[bytes, TunnelError], seen: Observation
    ) -> None:
        """Ends the sessions whose peers are gone, and answers all requests."""
        grants = self._records.lending.grants
        for request in requests:
            if (error := refused.get(request.public_key)) is not None:
                self._fail(request, error)
                continue
            session = self._records.live[request.public_key]
            device_ends.committed(self._records.live, self._records.devices, [(session, Reason.CLOSED)])
            self._records.live.drop(request.public_key)
            if self._records.devices.by_id(session.device_id) is not None:
                self._schedule.check_soon()  # its peer is put back, so that a new handshake opens the next session
            else:
                self._quarantine.add(session.address_offset)
            self._records.ended.add(replace(session, state=State.TERMINATED, terminated_at=seen.now.wall_ms))
            note_end(self._metrics, session, session.reason or request.reason)
            if grants is not None:
                grants.turned_over({session.account_id})  # the next tick may come after one is opened elsewhere
            request.succeed(None)

    def _fail(self, request: CloseRequest, error: TunnelError | None) -> None:
        session = self._records.live[request.public_key]
        log.warning(
            "peer was not removed yet: %s", error or "its counters could not be read", extra=about(**ids_of(session))
        )
        self._schedule.check_soon()
        refusal = PeerApplyFailed()
        refusal.__cause__ = error
        request.fail(refusal)
